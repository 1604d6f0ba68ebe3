"""Registers agents as their own agentd does, without one."""

from bus.contract import subjects
from bus.contract.questions import Agent, RegisterReply, RegisterRequest
from bus.transport.connection import Client
from bus.transport.micro_services import ask


async def register(client: Client, agent_id: str) -> Agent:
    """Registers one agent, however busy the machine is. Returns it as the scheduler has it."""
    reply = await ask(
        client,
        subjects.register(agent_id),
        RegisterRequest(),
        RegisterReply,
        who="the scheduler",
        timeout=60.0,
    )
    return reply.agent
