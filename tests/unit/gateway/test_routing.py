"""A model stays on its replica; a lost or full replica passes on what it must and nothing else."""

from contextlib import ExitStack

from service.gateway.routing import BATCHED_REQUESTS, DOWN_SECONDS, Replicas

URLS = ["http://a", "http://b", "http://c"]
MODELS = [f"ft:luthier-tiny:luthier::{number:08}" for number in range(300)]


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_process_sends_a_model_to_the_same_replica() -> None:
    there, here = Replicas(URLS), Replicas(list(reversed(URLS)))
    assert all(there.order(model) == here.order(model) for model in MODELS)
    shares = [sum(there.order(model)[0] == url for model in MODELS) for url in URLS]
    assert min(shares) > 60


def test_a_lost_replica_moves_only_its_own_models() -> None:
    before, after = Replicas(URLS), Replicas(URLS[:2])
    for model in MODELS:
        if before.order(model)[0] != URLS[2]:
            assert after.order(model)[0] == before.order(model)[0]


def test_a_down_replica_comes_last_until_it_is_forgiven() -> None:
    clock = Clock()
    replicas = Replicas(URLS, clock)
    home, second, third = replicas.order("m")
    replicas.mark_down(home)
    assert replicas.order("m") == [second, third, home]
    clock.now += DOWN_SECONDS
    assert replicas.order("m") == [home, second, third]


def test_a_model_that_everybody_calls_spills_over() -> None:
    replicas = Replicas(URLS)
    first_choice = replicas.order("base")
    with ExitStack() as answers:
        counts = dict.fromkeys(URLS, 0)
        for _ in range(60):
            url = replicas.order("base")[0]
            answers.enter_context(replicas.serving(url))
            counts[url] += 1
    assert all(10 <= count <= 25 for count in counts.values())  # 1.25 times the mean of 20
    assert replicas.order("base") == first_choice


def test_a_few_requests_stay_together() -> None:
    replicas = Replicas(URLS)
    home = replicas.order("m")[0]
    with ExitStack() as answers:
        for _ in range(BATCHED_REQUESTS):
            assert replicas.order("m")[0] == home
            answers.enter_context(replicas.serving(home))
        assert replicas.order("m")[0] != home
