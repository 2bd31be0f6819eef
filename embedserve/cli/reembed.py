"""`embedserve index reembed`: another model for an index, or the present build of its own."""

from typing import Annotated

import typer

from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import AsJson, print_result
from embedserve.cli.index_care import Name
from embedserve.cli.job_display import follow_job
from embedserve.errors import EmbedserveError


def reembed(
    name: Name,
    model: Annotated[
        str | None, typer.Option(help="Another installed model.", show_default=False)
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Embed every chunk anew, with another model or what its own is now; the old serves until then.

    An index with a definition file takes the file's model again at the next start.
    """
    with connect(home, is_long=True) as client:
        definition = client.get("indexes", name)["definition"]
        index = client.put(
            "indexes", name, body={**definition, "model": model or definition["model"]}
        )
        job = _job_of(client, index)
        if job:
            job = follow_job(client, job["id"], is_quiet=as_json)
            if job["status"] != "succeeded":
                raise EmbedserveError(
                    f"Job {job['id']} {job['status']}. {job['error'] or ''}".strip()
                )
        index = client.get("indexes", name)
    if index["change"] is not None:
        raise EmbedserveError(
            f"Index `{name}` was given another definition meanwhile, and still changes. Follow its "
            "jobs: `embedserve jobs list`."
        )
    done = f"{job['chunks_embedded']} chunks embedded" if job else "nothing to do"
    print_result(index, f"index {name} with model {index['model']}: {done}", as_json=as_json)


def _job_of(client: Client, index: Json) -> Json | None:
    """Return the newest job that changes the index, if there is anything to change.

    The last of several does what was asked for last, or ends when another has done it.
    """
    if index["change"] is None:
        return None
    jobs = client.get("jobs", index=index["name"], limit=100)["jobs"]
    found: Json | None = next((job for job in jobs if job["kind"] == "reembed"), None)
    return found
