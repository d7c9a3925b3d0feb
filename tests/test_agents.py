"""The tools as an agent finds them: over the Model Context Protocol's own client, from the running app."""

import ast
from urllib.request import urlopen

import numpy as np
import pytest
from running_app import awaited, launch_options, running_app

from pipelines.media import video
from pipelines.settings import Settings
from ui import agents

OF_A_JOB = ("stop", "pause", "resume")
ACTIONS = ("text_to_video", "grid", "pose_to_video", "poses", "tune", "edit", "finish")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("agents"), MARIONETTE_MCP="1") as running:
        yield running


def ask(app, question):
    """What `question`, which is given a session with the app's tools, finds out."""
    from mcp import ClientSession  # tests/requirements.txt brings it
    from mcp.client.streamable_http import streamablehttp_client

    async def asking():
        async with (
            streamablehttp_client(f"{app.url}/gradio_api/mcp/") as (reads, writes, _),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            return await question(session)

    return awaited(asking())


def test_an_agent_reads_what_each_tool_does_wants_and_returns(app):
    tools = {tool.name: tool for tool in ask(app, lambda session: session.list_tools()).tools}
    assert set(tools) == {*ACTIONS, *OF_A_JOB}
    for name, tool in tools.items():
        first, *_ = tool.description.split(". ")
        assert 10 < len(first) < 120 and "Parameters:" not in tool.description
        assert name in OF_A_JOB or "Returns: The" in tool.description
        for parameter, told in tool.inputSchema["properties"].items():
            assert told["description"].endswith("."), (name, parameter)
    schema = tools["text_to_video"].inputSchema
    assert schema["required"] == ["prompt"] and "English" in schema["properties"]["prompt"]["description"]
    assert "miniature-modelscope" in schema["properties"]["model"]["enum"]
    assert tools["edit"].inputSchema["required"] == ["tuned", "prompt", "visitor_id"]


def test_an_agent_has_a_video_made_and_a_mistake_explained(app):
    async def question(session):
        quick = {"prompt": "a robot in blue", "steps": 1, "frames": 8, "seed": 7}
        return await session.call_tool("text_to_video", quick), await session.call_tool("text_to_video", {"prompt": ""})

    made, refused = ask(app, question)
    assert not made.isError
    file, facts = ast.literal_eval(made.content[0].text)
    assert facts["task"] == facts["task"] | {"prompt": "a robot in blue", "seed": 7, "frames": 8}
    with urlopen(file["url"], timeout=30) as answer:
        content = answer.read()
    saved = app.data / "by-an-agent.mp4"
    saved.write_bytes(content)
    assert video.read(saved).shape == (8, 128, 128, 3) and video.read(saved).dtype == np.uint8
    assert refused.isError and refused.content[0].text.startswith("The prompt is empty.")


def test_no_tools_are_offered_unless_that_is_set(tmp_path):
    assert launch_options(Settings(data=tmp_path))["mcp_server"] is False  # whatever GRADIO_MCP_SERVER says


@pytest.mark.parametrize("closed", [{"password": "sesame"}, {"admitted": "owner"}])
def test_tools_are_not_offered_past_a_door_that_is_shut(closed):
    with pytest.raises(ValueError, match="does not go with"):
        agents.tools(Settings(mcp=True, **closed))
