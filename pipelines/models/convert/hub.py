"""A tuned model on its way to the Hugging Face Hub: a private repository, and a model card made from the facts.

The token is given with each call. It is not kept, and no error that leaves this file holds it.
"""

import json
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from pipelines.cards import ModelCard
from pipelines.events import Progress
from pipelines.messages import said

UPLOADING = said("Uploading")
LICENCES = {"MIT": "mit", "CreativeML Open RAIL-M": "creativeml-openrail-m"}  # as a card says it -> as the Hub does


def upload(
    folder: Path, name: str, card: str, token: str, endpoint: str | None = None
) -> Generator[Progress, None, str]:
    """Makes the private model repository `name` of whoever the token is of, with the files of `folder` and `card`.

    All comes in one commit: whoever leaves early has an empty repository. Returns its address. Raises ValueError, in
    words for the person who asked, where the name can't be, is taken, or the Hub refuses.
    """
    if not re.fullmatch(r"(?!.*(--|\.\.))[A-Za-z0-9]([\w.-]{0,94}[A-Za-z0-9])?", name, re.ASCII):
        raise ValueError(said("A repository's name has up to 96 letters, digits, dots, dashes and underscores."))
    api = HfApi(endpoint=endpoint, token=token)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    try:
        address = api.create_repo(name, private=True)
        operations = [CommitOperationAdd("README.md", card.encode())]
        for number, file in enumerate(files):
            yield Progress(UPLOADING, number, len(files))
            operations.append(CommitOperationAdd(file.relative_to(folder).as_posix(), str(file)))
            api.preupload_lfs_files(address.repo_id, [operations[-1]])
        api.create_commit(address.repo_id, operations, commit_message="Tuned with Marionette")
        yield Progress(UPLOADING, len(files), len(files))
        return str(address)
    except HfHubHTTPError as error:
        status = error.response.status_code
    except Exception as error:  # no connection, a time out, …
        raise ValueError(
            said("The Hub can't be reached ({reason}). Try again in a while.", reason=type(error).__name__)
        ) from None
    reasons = {
        401: said("The Hub does not know you any more. Sign in again."),
        403: said("The Hub does not let this app make a repository for you. Sign in again, and allow it."),
        409: said("You have a repository of this name already. Choose another name."),
    }
    refused = said("The Hub refused this (error {number}). Try again in a while.", number=status)
    raise ValueError(reasons.get(status, refused))


def model_card(title: str, card: ModelCard, facts: Mapping[str, Any]) -> str:
    """What the model page says: the base `card`, and the `facts` of the tuning with its "task"."""
    task = facts["task"]
    licence = next((LICENCES[name] for name in LICENCES if card.licence.startswith(name)), "other")
    steps = len(facts["losses"])
    head = {"license": licence, "pipeline_tag": "text-to-video", "tags": ["tune-a-video", "text-to-video", "diffusers"]}
    if not card.source.is_folder:
        head["base_model"] = card.source.location
    about = {
        "Base": card.title if card.source.is_folder else f"{card.source.location}, revision {card.source.revision}",
        "The clip's caption": task["prompt"],
        "Frames": f"{facts['frames']} of {facts['width']}x{facts['height']}, {facts['fps']:g} a second",
        "Steps": f"{steps}" if steps == task["steps"] else f"{steps} of {task['steps']}, stopped early",
        "Learning rate": f"{task['learning_rate']:g}",
        "What was trained": task["trained"],
        "Seed": f"{task['seed']}",
        "Loss": f"{sum(facts['losses'][-10:]) / max(1, min(10, steps)):.4f} over the last {min(10, steps)} steps",
        "Licence of the base": card.licence,
    }
    rows = "\n".join(f"| {name} | {_plain(text)} |" for name, text in about.items())
    return (
        f"---\n{_yaml(head)}---\n\n# {_plain(title)}\n\nA Tune-A-Video model (Wu et al., 2023), tuned on one clip with "
        f"Marionette. It tells that clip again in other words.\n\n| | |\n| --- | --- |\n{rows}\n\n"
        f"## Limits\n\n{card.shortcomings} {card.not_for}\n"
    )


def _yaml(values: Mapping[str, Any]) -> str:
    """Every value as JSON, which YAML is a superset of."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _plain(text: str) -> str:
    """What a visitor wrote as one line of Markdown that is nothing but text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$-])", r"\\\1", " ".join(text.split()))
