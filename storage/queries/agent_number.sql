SELECT agent FROM agents WHERE agent_id = $agent_id;
