"""Two requests that create one index at once both get it."""

import threading

from tests.live import LiveServer


def test_creating_an_index_twice_at_once_makes_one(server: LiveServer) -> None:
    for number in range(5):
        statuses: list[int] = []
        ready = threading.Barrier(4)

        def create(
            name: str = f"twice-{number}",
            ready: threading.Barrier = ready,
            statuses: list[int] = statuses,
        ) -> None:
            ready.wait(10)
            statuses.append(server.http.put(f"/indexes/{name}", json={}).status_code)

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(statuses) == [200, 200, 200, 201]
        server.http.delete(f"/indexes/twice-{number}").raise_for_status()
