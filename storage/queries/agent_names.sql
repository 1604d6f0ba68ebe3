SELECT agent, agent_id FROM agents WHERE list_contains($agents, agent);
