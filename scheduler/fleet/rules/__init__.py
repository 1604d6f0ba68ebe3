"""What may be changed about an agent, and whether two answer under one id. Pure."""
