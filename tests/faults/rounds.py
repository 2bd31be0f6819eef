"""Rounds of `kill -9` while a folder moves, documents are sent, and jobs and rebuilds run.

Everything is drawn from one seed, so that a run can be had again; at which instruction a process
dies is left to the machine.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import httpx

from embedserve.store.closing import Closing
from tests.faults.family import (
    CHROMA,
    WORKER,
    children,
    kill_all,
    kill_child,
    wait_until_nothing_runs_in,
)
from tests.faults.moving_folder import MovingFolder
from tests.faults.rest import (
    BUILDING,
    BUSY,
    FILES_DONE,
    WAITING,
    ask,
    ingest,
    patient,
    wait_for_rest,
)
from tests.live import LiveServer

logger = logging.getLogger(__name__)

INDEX = "book"
MOMENT_S = 20
"""The longest wait for a moment: a job may have nothing to do, or the machine be busy."""
CHILD_S = 120
"""Chroma that is killed often is started again ever later, up to half a minute."""
LATER_S = 0.4
WEIGHTS = (1, 2, 2, 1)
"""Of the victims: those that take a start of the server come half as often."""
SENT = tuple(f"sent/{number}.md" for number in range(4))


class KillRounds(Closing):
    """A home, its moving folder, and what was killed so far."""

    def __init__(self, home: Path, folder: MovingFolder, chance: random.Random) -> None:
        self.home = home
        self.folder = folder
        self.sent: dict[str, bytes | None] = {}
        """What has been sent to the index, by name; None: taken back."""
        self.kills: Counter[str] = Counter()
        """Kills by victim and, beside it, by what went on when it died."""
        self._chance = chance
        self._server: LiveServer | None = None

    def run(self, kills: int) -> None:
        """Kill so often."""
        victims: dict[str, Callable[[LiveServer], bool]] = {
            "server": self._kill_server,
            "chroma": self._kill_chroma,
            "worker": self._kill_worker,
            "everything": self._kill_everything,
        }
        for number in range(kills):
            # Each in turn at first, so that a short run has them all.
            names = list(victims)
            [name] = names[number : number + 1] or self._chance.choices(names, WEIGHTS)
            server = self.server()
            unrest = Unrest(self, server, random.Random(self._chance.random()))
            unrest.start()
            try:
                unrest.has_asked.wait(MOMENT_S)
                self._wait_for_moment()
                going_on = self._going_on()
                assert victims[name](server), f"nothing to kill: {name}\n{server.log()[-2000:]}"
            finally:
                unrest.stop()
            self.kills.update([name, *going_on])
            logger.info("%d: %s, %s", number + 1, name, ", ".join(going_on) or "at rest")
            if server.process.poll() is not None:
                self._leave(server)
            else:
                assert isinstance(server.query(INDEX, "What is ownership?"), list)

    def server(self) -> LiveServer:
        """Return the server, started where none runs."""
        if self._server is None:
            self._server = patient(self.home, self.folder.root)
            self._server.http.put(f"/indexes/{INDEX}", json={}).raise_for_status()
        return self._server

    def close(self) -> None:
        """Stop the server where one runs."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def settle(self) -> None:
        """Let all that was begun end, and ingest what the folder is now."""
        server = self.server()
        for name in list(self.sent):
            send(server, self.sent, name, self.sent[name])
        wait_for_rest(server)
        ingest(server, INDEX, self.folder.root)

    def _leave(self, server: LiveServer) -> None:
        server.http.close()
        self._server = None
        wait_until_nothing_runs_in(self.home)

    # -- when ---------------------------------------------------------------------------------

    def _wait_for_moment(self) -> None:
        moments: list[Callable[[], None]] = [
            lambda: None,
            self._wait_for_files,
            self._wait_for_files,
            lambda: self._wait_for(WAITING),
            lambda: self._wait_for(BUILDING),
            lambda: time.sleep(self._chance.uniform(0, 2)),
        ]
        self._chance.choice(moments)()
        time.sleep(self._chance.uniform(0, LATER_S))

    def _wait_for_files(self) -> None:
        self._wait_for(FILES_DONE, more_than=ask(self.home, FILES_DONE) + self._chance.randrange(5))

    def _wait_for(self, question: str, *, more_than: int = 0) -> None:
        """Wait until the catalog's answer is more, or nothing is to be done any more."""
        deadline = time.monotonic() + MOMENT_S
        while ask(self.home, question) <= more_than and time.monotonic() < deadline:
            if not ask(self.home, BUSY):
                return
            time.sleep(0.01)

    def _going_on(self) -> list[str]:
        questions = {"in a job": BUSY, "in a rebuild": BUILDING, "with changes waiting": WAITING}
        return [name for name, question in questions.items() if ask(self.home, question)]

    # -- whom ---------------------------------------------------------------------------------

    def _kill_server(self, server: LiveServer) -> bool:
        server.process.kill()
        server.process.wait()
        return True

    def _kill_everything(self, server: LiveServer) -> bool:
        kill_all(server.pid, self._chance)
        server.process.wait()
        return True

    def _kill_chroma(self, server: LiveServer) -> bool:
        return self._kill_one(server, CHROMA)

    def _kill_worker(self, server: LiveServer) -> bool:
        return self._kill_one(server, WORKER)

    def _kill_one(self, server: LiveServer, program: str) -> bool:
        """Kill a child that runs a program, as soon as there is one."""
        deadline = time.monotonic() + CHILD_S
        while time.monotonic() < deadline:
            if pids := children(server.pid, program):
                return kill_child(self._chance.choice(pids), server.pid)
            time.sleep(0.01)
        return False


class Unrest(Thread):
    """What users do meanwhile, until they are stopped or the server is gone."""

    def __init__(self, rounds: KillRounds, server: LiveServer, chance: random.Random) -> None:
        super().__init__(name="unrest")
        self._rounds = rounds
        self._server = server
        self._chance = chance
        self.has_asked = Event()
        """For a job."""
        self._is_over = Event()
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """End, and raise what went wrong other than by the kill."""
        self._is_over.set()
        self.join()
        if self._failure:
            raise self._failure

    def run(self) -> None:
        """Change the folder before a job and while it runs, now and then do something else too."""
        try:
            for step in range(self._chance.randint(2, 8)):
                if self._is_over.is_set():
                    return
                if step:
                    self._rounds.folder.change()
                else:
                    self._rounds.folder.edit()  # so that a worker has something to read
                    self._ingest()
                if self._chance.random() < 0.2:
                    self._send()
                if self._chance.random() < 0.1:
                    self._rebuild()
                self._is_over.wait(self._chance.uniform(0, 0.3))
        except httpx.TransportError:
            pass  # the server was killed while it was asked
        except BaseException as error:
            self._failure = error

    def _ingest(self) -> None:
        path = str(self._rounds.folder.root)
        reply = self._server.http.post(f"/indexes/{INDEX}/ingest", json={"path": path})
        assert reply.status_code == 202, reply.text
        self.has_asked.set()

    def _send(self) -> None:
        name = self._chance.choice(SENT)
        text = f"# Sent\n\nA text of its own: {self._chance.random()}.\n" * self._chance.randint(
            1, 9
        )
        content = None if self._chance.random() < 0.3 else text.encode()
        send(self._server, self._rounds.sent, name, content)

    def _rebuild(self) -> None:
        with self._server.http.stream("POST", f"/indexes/{INDEX}/rebuild") as reply:
            assert reply.status_code == 200
            next(reply.iter_lines())  # it goes on when nobody follows it


def send(
    server: LiveServer, sent: dict[str, bytes | None], name: str, content: bytes | None
) -> None:
    """Send a document, or take it back; what is noted is what was wanted, whatever came of it."""
    sent[name] = content
    url = f"/indexes/{INDEX}/documents/{name}"
    if content is None:
        reply = server.http.delete(url)
        assert reply.status_code in (200, 404), reply.text
    else:
        reply = server.http.put(url, content=content)
        assert reply.status_code == 202, reply.text
