"""The model manager, with tiny real modules and a budget that the test sets."""

import os
import threading
import time
import weakref
from dataclasses import dataclass, field

import pytest
import tiny
import torch
from torch import nn

from pipelines.catalog import CATALOG
from pipelines.models import manager
from pipelines.models.loading import Component
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings

CARD = CATALOG["miniature-modelscope"]
KB = 1000  # bytes: each test module has 250 floats


class Travelling(nn.Module):
    """A module of 1000 bytes that notes where it is told to go, so that a device can be had that is not there."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(250))
        self.place = torch.device("cpu")

    def to(self, device):
        self.place = device
        return self


@dataclass
class Shelf:
    """Components to load, by part; counts the loads. `same` lists parts that hold the same weights."""

    kind: type = Travelling
    same: tuple = ()
    loads: list = field(default_factory=list)

    def __call__(self, card, part, settings, on_progress):
        def load(on_progress):
            for done in (0, 500, KB):
                on_progress(done, KB)
            self.loads.append(part)
            return self.kind()

        return Component(key="same" if part in self.same else part, bytes=KB, load=load)


class Budget:
    """The free bytes of a device of `size`: what the models on it leave."""

    def __init__(self, size):
        self.size = size

    def __call__(self):
        return self.size - sum(one.bytes for one in self.models.stats() if one.device == self.models.device)


def make(size=10 * KB, device="meta", shelf=None, **settings):
    """A manager of a pretended device ("meta" holds nothing and costs nothing) with `size` bytes."""
    budget = Budget(size)
    budget.models = ModelManager({"m": CARD}, Settings(**settings), device, budget, shelf or Shelf())
    return budget.models


def places(models):
    return {one.key: one.device.type for one in models.stats()}


def use(models, *parts, working_bytes=0):
    for part in parts:
        with models.lease(f"m/{part}", working_bytes):
            pass


def test_lease_loads_once_and_moves_to_the_device():
    shelf = Shelf()
    models = make(shelf=shelf)
    assert models.stats() == [] and shelf.loads == []
    with models.lease("m/unet") as unet:
        assert unet.place == models.device
        assert not unet.training and not unet.weight.requires_grad
    with models.lease("m/unet") as again:
        assert again is unet
    assert shelf.loads == ["unet"]


def test_leases_are_counted_nest_and_end_with_errors():
    models = make()
    with pytest.raises(KeyError):
        with models.lease("m/a"), models.lease("m/a"), models.lease("m/b"):
            assert {one.key: one.leases for one in models.stats()} == {"a": 2, "b": 1}
            raise KeyError
    assert {one.key: one.leases for one in models.stats()} == {"a": 0, "b": 0}


def test_same_weights_are_one_component():
    shelf = Shelf(same=("vae", "autoencoder"))
    models = make(shelf=shelf)
    with models.lease("m/vae") as one, models.lease("m/autoencoder") as other:
        assert one is other
    (record,) = models.stats()
    assert (record.names, record.hits, shelf.loads) == (["m/vae", "m/autoencoder"], 1, ["vae"])


def test_longest_unused_leaves_first():
    models = make(3 * KB)
    use(models, "a", "b", "c", "a", "d")
    assert places(models) == {"a": "meta", "b": "cpu", "c": "meta", "d": "meta"}
    use(models, "b")  # comes back without being read again
    assert places(models) == {"a": "meta", "b": "meta", "c": "cpu", "d": "meta"}
    assert models._component.loads == ["a", "b", "c", "d"]


def test_leased_components_stay():
    models = make(2 * KB)
    with models.lease("m/a") as a, models.lease("m/b"):
        use(models, "c")  # more than the budget: tried all the same
        assert places(models) == {"a": "meta", "b": "meta", "c": "meta"}
        assert a.place.type == "meta"
        use(models, "d")
        assert places(models)["c"] == "cpu"


def test_working_memory_makes_room():
    models = make(4 * KB)
    use(models, "a", "b", "c")
    use(models, "c", working_bytes=2 * KB)
    assert places(models) == {"a": "cpu", "b": "meta", "c": "meta"}
    use(models, "c", working_bytes=3 * KB + 1)
    assert places(models) == {"a": "cpu", "b": "cpu", "c": "meta"}


def test_what_is_wanted_anywhere_stays_in_main_memory_where_the_device_is_too_small():
    models = make(size=2.5 * KB)
    use(models, "a")
    with models.lease("m/b", working_bytes=2 * KB, anywhere=True) as b:
        assert b.place.type == "cpu" and places(models) == {"a": "meta", "b": "cpu"}
    with models.lease("m/b", working_bytes=KB, anywhere=True) as b:  # once a has left, that is there
        assert b.place.type == "meta" and places(models) == {"a": "cpu", "b": "meta"}
    with models.lease("m/b", working_bytes=2 * KB, anywhere=True):  # it is there already
        assert places(models)["b"] == "meta"


def test_full_main_memory_forgets(monkeypatch):
    models = make(1 * KB)
    monkeypatch.setattr(manager, "free_ram", lambda: (3 - list(places(models).values()).count("cpu")) * KB)
    use(models, "a", "b", "c")
    assert places(models) == {"a": "cpu", "b": "cpu", "c": "meta"}
    use(models, "d")  # device -> main memory -> gone
    assert places(models) == {"b": "cpu", "c": "cpu", "d": "meta"}


def test_cpu_neither_copies_nor_moves():
    models = make(3 * KB, device="cpu")
    use(models, "a", "b", "c")
    assert places(models) == {"b": "cpu", "c": "cpu"}
    assert models.dtype == torch.float32
    with models.lease("m/b") as one:
        pointer = one.weight.data_ptr()
    with models.lease("m/b") as one:
        assert one.weight.data_ptr() == pointer and one.place.type == "cpu"


def test_weights_get_the_devices_precision():
    class Half(Travelling):
        def __init__(self):
            super().__init__()
            self.half()

    with make(device="cpu", shelf=Shelf(Half)).lease("m/unet") as unet:
        assert unet.weight.dtype == torch.float32


def test_a_failed_move_forgets_the_component():
    class Stubborn(Travelling):
        def to(self, device):
            raise RuntimeError("the cable is loose")

    models = make(shelf=Shelf(Stubborn))
    with pytest.raises(RuntimeError, match="cable"):
        use(models, "a")
    assert models.stats() == []


def test_a_failed_load_leaves_nothing():
    class Broken(nn.Module):
        def __init__(self):
            raise ValueError("the weights are cut short")

    models = make(shelf=Shelf(Broken))
    with pytest.raises(ValueError, match="cut short"):
        use(models, "a")
    assert models.stats() == []


def test_what_is_no_module_has_no_device():
    class Words(dict):
        pass

    models = make(shelf=Shelf(Words))
    with models.lease("m/tokenizer") as words:
        assert isinstance(words, Words)
    (record,) = models.stats()
    assert (record.bytes, record.device.type) == (0, "cpu")


def test_unknown_models():
    with pytest.raises(ValueError, match="no model called 'x'"):
        with make().lease("x/unet"):
            pass
    with pytest.raises(ValueError, match="no device 'tpu'"):
        ModelManager({"m": CARD}, Settings(), "tpu")


def test_the_device_is_found_and_has_its_number():
    models = ModelManager({"m": CARD}, Settings(device="auto"), component=Shelf(lambda: nn.Linear(2, 2)))
    with models.lease("m/unet") as unet:
        assert unet.weight.device == models.device
    assert models.device == torch.empty(1, device="cuda" if torch.cuda.is_available() else "cpu").device


def test_loading_tells_its_progress_and_can_be_given_up():
    shelf = Shelf()
    models = make(shelf=shelf)
    told = []
    models.on_progress = lambda done, total: told.append((done, total))
    use(models, "a")
    assert told == [(0, KB), (500, KB), (KB, KB)]

    def give_up(done, total):
        if done:
            raise InterruptedError

    models.on_progress = give_up
    with pytest.raises(InterruptedError):
        use(models, "b")
    assert places(models) == {"a": "meta"} and shelf.loads == ["a"]


def test_stats():
    models = make()
    use(models, "a", "b", "a")
    with models.lease("m/b"):
        b, a = models.stats()
    assert (a.names, a.key, a.bytes, a.device.type, a.hits, a.leases) == (["m/a"], "a", KB, "meta", 1, 0)
    assert (b.leases, b.hits) == (1, 1) and b.last_use > a.last_use
    assert a.load_seconds >= 0 and a.module is None


def test_what_is_forgotten_is_freed():
    models = make()
    with models.lease("m/a") as module:
        weight = weakref.ref(module.weight)
    del module
    models.unload_all()
    assert weight() is None


def test_unloading():
    models = make(idle_minutes=30)
    use(models, "a", "b")
    models.unload_idle()
    assert places(models) == {"a": "meta", "b": "meta"}
    with models.lease("m/a"):
        for resident in models._residents.values():
            resident.last_use -= 31 * 60
        models.unload_idle()
        assert places(models) == {"a": "meta"}
        models.unload_all()
        assert places(models) == {"a": "meta"}
    models.unload_idle()  # it was used just now
    assert places(models) == {"a": "meta"}
    models.unload_all()
    assert models.stats() == []


def test_builds_never_overlap():
    """Two managers in two threads: diffusers and transformers patch torch while they build."""
    building, most = [], []

    class Slow(Travelling):
        def __init__(self):
            super().__init__()
            building.append(self)
            most.append(len(building))
            time.sleep(0.02)
            building.remove(self)

        def __eq__(self, other):
            return self is other

        __hash__ = object.__hash__

    pairs = [make(shelf=Shelf(Slow)) for _ in range(4)]
    threads = [threading.Thread(target=use, args=(models, "a", "b")) for models in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 8 and max(most) == 1


def test_many_threads_share_one_component():
    models = make(3 * KB)
    failures = []

    def work(seed):
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed)).tolist()
        for part in order * 10:
            with models.lease(f"m/{part}") as module:
                if module.place != models.device:
                    failures.append(part)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and all(one.leases == 0 for one in models.stats())
    assert sorted(models._component.loads) == list("01234")


def too_large_for_this_machine():
    torch.empty(2**62, dtype=torch.uint8)


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    "fail",
    [
        raising(torch.OutOfMemoryError("CUDA out of memory")),
        raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
        too_large_for_this_machine,
    ],
    ids=["allocator", "cublas", "cudnn", "cpu"],
)
def test_out_of_memory_is_tried_again_frugally(fail):
    models = make(4 * KB)
    use(models, "idle")
    seen = []

    def start():
        with models.lease("m/unet", working_bytes=KB):
            seen.append((models.frugal, places(models)))
            yield "step"
            if not models.frugal:
                fail()
        return "video"

    assert tiny.finish(models.attempt(start)) == (["step", "step"], "video")
    assert seen == [
        (False, {"idle": "meta", "unet": "meta"}),
        (True, {"idle": "cpu", "unet": "meta"}),  # the device was emptied in between
    ]
    assert models.frugal is False


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_while_a_module_moves(times):
    """What did not get to the device whole is dropped, and read again for the second attempt."""
    left = [torch.OutOfMemoryError("CUDA out of memory")] * times

    class Heavy(Travelling):
        def to(self, device):
            if device.type == "meta" and left:
                raise left.pop()
            return super().to(device)

    shelf = Shelf(Heavy)
    models = make(shelf=shelf)

    def start():
        with models.lease("m/unet") as unet:
            yield unet.place.type
        return "video"

    if times == 1:
        assert tiny.finish(models.attempt(start)) == (["meta"], "video")
        assert places(models) == {"unet": "meta"}
    else:
        with pytest.raises(MemoryError, match="Choose fewer frames"):
            tiny.finish(models.attempt(start))
        assert models.stats() == []
    assert shelf.loads == ["unet", "unet"] and left == []


def test_out_of_memory_twice_says_the_numbers():
    models = make(2_500_000_000)

    def start():
        with models.lease("m/unet", working_bytes=3_250_000_000):
            yield "step"
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match=r"more than 3\.25 GB at once and 2\.50 GB can be had\. Choose fewer frames"):
        tiny.finish(models.attempt(start))
    assert models.frugal is False and [one.leases for one in models.stats()] == [0]


def test_the_first_attempts_tensors_are_gone_before_the_second():
    models, tensors, alive = make(), [], []

    def start():
        activations = torch.zeros(10)
        alive.append([reference() is not None for reference in tensors])
        tensors.append(weakref.ref(activations))
        yield
        if not models.frugal:
            raise torch.OutOfMemoryError

    tiny.finish(models.attempt(start))
    assert alive == [[], [False]]


def test_other_failures_are_not_tried_again():
    models, runs = make(), []

    def start():
        runs.append(1)
        yield
        raise RuntimeError("CUDA out of memory, says this text, but it is not that")

    with pytest.raises(RuntimeError):
        tiny.finish(models.attempt(start))
    assert runs == [1]


def test_closing_an_attempt_ends_its_leases():
    models = make()

    def start():
        with models.lease("m/unet"):
            while True:
                yield

    running = models.attempt(start)
    next(running)
    assert [one.leases for one in models.stats()] == [1]
    running.close()
    assert [one.leases for one in models.stats()] == [0]


def test_measured_budget_is_less_than_the_machine_has():
    models = ModelManager({"m": CARD}, Settings(memory_margin_mb=100), "cpu", component=Shelf())
    with_margin = ModelManager({"m": CARD}, Settings(memory_margin_mb=2000), "cpu", component=Shelf())
    use(models, "a")
    assert 0 < models._measured_budget() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert with_margin._measured_budget() < models._measured_budget() - 1_000_000_000
