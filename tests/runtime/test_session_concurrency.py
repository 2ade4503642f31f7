"""Sessions beside other things: threads that share one, forked children, Ctrl-C."""

from __future__ import annotations

import ctypes
import functools
import gc as garbage
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest
from support.sessions import DEVICES, ROOT

import graphcore as gc


def script(source: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a Python script in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# --- threads ----------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Any) -> None:
    """Run ``work(i)`` in threads that start together; raise what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded(i: int) -> None:
        start.wait()
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads), "a thread hangs"
    if failures:
        raise failures[0]


def test_threads_equal_serial_execution(sess: gc.Session) -> None:
    counter, twin = gc.Variable(np.int64(0)), gc.Variable(np.zeros(50, np.int64))
    x = gc.placeholder("float32", (None,))
    step = [counter.assign(counter + 1), twin.assign(twin + 1)]
    y = (x * 2 + counter.astype("float32") * 0).sum()
    seen: list[int] = []

    def work(i: int) -> None:
        fetch = counter.read()
        for k in range(20):
            n = 1 + (i + k) % 5
            before, both, total, _ = sess.run([fetch, twin, y, step], {x: np.full(n, i)})
            assert (both == before).all()  # of one moment
            assert total == 2 * n * i
            seen.append(int(before))

    in_threads(16, work)
    assert sess.get_value(counter) == 320 and (sess.get_value(twin) == 320).all()
    assert sorted(seen) == list(range(320))  # every run saw a state of its own


def test_threads_that_initialise_the_same_variables(sess: gc.Session) -> None:
    base = gc.Variable(gc.init.normal((100,)))
    derived = gc.Variable(base.read() * 2)
    totals = [gc.Variable(0.0) for _ in range(20)]

    def work(i: int) -> None:
        for t in totals:  # variables appear while others run: their memory grows meanwhile
            sess.run([t.assign(t + 1), (derived * (i + 1)).sum()])

    in_threads(8, work)
    assert [float(sess.get_value(t)) for t in totals] == [8.0] * 20  # nobody's first value came late
    np.testing.assert_array_equal(sess.get_value(derived), sess.get_value(base) * 2)


def test_state_dict_is_of_one_moment(sess: gc.Session) -> None:
    a, b = gc.Variable(np.zeros(2000), name="a"), gc.Variable(np.zeros(2000), name="b")
    step = sess.make_callable([a.assign(a + 1), b.assign(b + 1)])
    step()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            state = sess.state_dict()
            assert (state["a"] == state["b"][0]).all() and (state["b"] == state["a"][0]).all()

    def work(i: int) -> None:
        if i == 0:
            look()
        else:
            try:
                for _ in range(60):
                    step()
            finally:
                done.set()

    in_threads(2, work)


def test_compilation_is_outside_the_run_lock(sess: gc.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcore.runtime import compiled

    x = gc.placeholder("float32", ())
    fast = sess.make_callable(x + 1, [x])
    fast(1)
    compiling, go_on = threading.Event(), threading.Event()
    real = compiled.Compiled.__init__

    def slow(self: Any, *args: Any) -> None:
        compiling.set()
        assert go_on.wait(30)
        real(self, *args)

    monkeypatch.setattr(compiled.Compiled, "__init__", slow)
    other = threading.Thread(target=lambda: sess.run(x * 3, {x: 1}), daemon=True)
    other.start()
    assert compiling.wait(30)
    assert fast(2) == 3  # would hang if compiling held the lock
    go_on.set()
    other.join(30)
    assert not other.is_alive()


def test_turns_come_in_the_order_of_asking() -> None:
    from graphcore.runtime.locks import Line, Turn

    line, order, first = Line(), [], Turn()
    threads = []
    with first.lock:
        line.wait(first)

        def take(i: int) -> None:
            turn = Turn()
            with turn.lock:
                line.wait(turn)
                order.append(i)

        for i in range(10):
            last = line._last
            threads.append(threading.Thread(target=take, args=(i,), daemon=True))
            threads[-1].start()
            while line._last is last:
                time.sleep(0.001)
        assert order == []
    for t in threads:
        t.join(10)
    assert order == list(range(10))


def test_a_turn_that_is_given_up_lets_nobody_jump_the_line() -> None:
    from graphcore.runtime.locks import Line, Turn

    line, first, given_up, last = Line(), Turn(), Turn(), Turn()
    entered = threading.Event()
    with first.lock:
        line.wait(first)
        with given_up.lock, line._guard:  # as an interrupted wait leaves it
            given_up.before, line._last = line._last, given_up

        def take() -> None:
            with last.lock:
                line.wait(last)
                entered.set()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join(10)


# --- fork -------------------------------------------------------------------------------------------------------------

FORK = """
    import os, sys
    import numpy as np
    import graphcore as gc
    from graphcore.runtime.locks import Line
    device = sys.argv[1]
    try:
        sess = gc.Session(device)
    except gc.DeviceError as error:
        print("skip", error); sys.exit(0)
    w = gc.Variable(np.zeros(3), name="w")
    x = gc.placeholder("float32", (3,), name="x")
    f = sess.make_callable(x * 2, [x])
    f(np.ones(3)); sess.get_value(w)
    pid = os.fork()
    if pid == 0:
        wait, waits = Line.wait, []
        Line.wait = lambda line, turn: waits.append(turn)  # what is refused at once has waited for nothing
        calls = [
            lambda: f(np.ones(3)),
            lambda: sess.run(x + 1, {x: np.ones(3)}),
            lambda: sess.get_value(w),
            lambda: sess.set_value(w, np.ones(3)),
            lambda: sess.save("/nonexistent/x"),
            lambda: sess.compile(x * 5, {x: (3,)}),
            lambda: sess.make_callable(x * 7, [x]),
        ]
        if device.startswith("opencl"):
            calls.append(lambda: gc.Session(device))
        good = True
        for call in calls:
            try:
                call()
                good = False
            except gc.DeviceError as error:
                good = good and "fork" in str(error) and "spawn" in str(error)
        sess.close()
        Line.wait = wait
        oracle = gc.Session("numpy")
        good = good and oracle.run(x * 2, {x: np.ones(3)}).tolist() == [2, 2, 2]
        print("child", good, len(waits), flush=True)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert f(np.ones(3)).tolist() == [2, 2, 2]
    print("parent", status, flush=True)
"""


@pytest.mark.parametrize("device", DEVICES)
def test_a_forked_child_gets_an_error_at_once(device: str) -> None:
    done = script(FORK, device)
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    assert done.stdout.splitlines() == ["child True 0", "parent 0"], done.stdout + done.stderr


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPT = """
    import faulthandler, os, random, signal, sys, threading, time
    import numpy as np
    import graphcore as gc
    device, wanted = sys.argv[1], int(sys.argv[2])
    try:
        sess = gc.Session(device)
    except gc.DeviceError as error:
        print("skip", error); sys.exit(0)
    faulthandler.dump_traceback_later(float(sys.argv[3]), exit=True)
    rng = random.Random(1)
    # Two variables that different kernels of different levels update together: a torn run would leave them unequal.
    a = gc.Variable(np.zeros((200, 200), np.float32), name="a")
    b = gc.Variable(np.zeros((200, 200), np.float32), name="b")
    count = gc.Variable(np.int64(0), name="count")
    eye = gc.constant(np.eye(200, dtype=np.float32))
    x = gc.placeholder("float32", (None, 200), name="x")
    u = x.sum(axis=0) * 0 + 1
    step = [a.assign(a + u), b.assign((b + 1) @ eye), count.assign(count + 1)]
    runs = [sess.make_callable(step, [x]), lambda d: sess.run(step, {x: d}), lambda d: sess.run([a, step], {x: d})]
    data = [np.ones((n, 200), np.float32) for n in (1, 2, 5)]
    for r in runs:
        r(data[0])
    print(sess.compile(step, {x: data[0]}).cost_analysis()["levels"], flush=True)
    target = threading.main_thread().ident
    stop, waiting, signals = False, threading.Event(), 0

    armed = [False]

    def once(*_):  # one interrupt each time it is armed, so that none meets the test's own bookkeeping
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, once)

    def interrupt():
        while not stop:
            waiting.wait(0.1)  # an interrupt inside a destructor is lost, as Python does with exceptions there
            waiting.clear()
            time.sleep(rng.random() ** 2 * 0.003)
            if not stop:
                signal.pthread_kill(target, signal.SIGINT)

    def background():  # keeps the line long, so that waiting is interrupted too
        while not stop:
            sess.get_value(count)
            time.sleep(0.0002)

    threads = [threading.Thread(target=t, daemon=True) for t in (interrupt, background)]
    for t in threads:
        t.start()
    hits = 0
    done = 0
    while hits < wanted:
        try:
            armed[0] = True
            waiting.set()
            while True:
                runs[done % 3](data[done % 2])
                done += 1
                if done % 7 == 0:  # a new graph now and then: interrupts in compilation
                    sess.run(x.sum() * float(done), {x: data[2]})
        except KeyboardInterrupt:
            hits += 1
        try:
            armed[0] = True
            values = sess.state_dict()
            armed[0] = False
            assert (values["a"] == values["a"][0, 0]).all(), "a is torn"
            assert (values["b"] == values["b"][0, 0]).all(), "b is torn"
            numbers = values["a"][0, 0], values["b"][0, 0], values["count"]
            assert numbers[0] == numbers[1] == numbers[2], numbers
        except KeyboardInterrupt:
            continue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = True
    waiting.set()
    for t in threads:
        t.join(5)
        assert not t.is_alive(), "a thread hangs"
    before = sess.get_value(count)
    for r in runs:
        r(data[0])
    assert sess.get_value(count) == before + 3
    print("good", hits, done, flush=True)
"""


@pytest.mark.parametrize("device", DEVICES)
def test_interrupts_never_tear_an_update(device: str) -> None:
    check_interrupts(device, 40, 120)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_many_interrupts_never_tear_an_update(device: str) -> None:
    check_interrupts(device, 2000, 600)


def check_interrupts(device: str, interrupts: int, limit: int) -> None:
    """So many interrupts; after ``limit`` seconds it hangs."""
    done = script(INTERRUPT, device, str(interrupts), str(limit), timeout=limit + 30)
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and int(lines[0]) > 1 and lines[1].startswith("good"), done.stdout + done.stderr


def test_an_interrupt_between_two_launches_waits_for_the_last(intel: gc.Session) -> None:
    a, b = gc.Variable(np.zeros((200, 200), np.float32)), gc.Variable(np.zeros((200, 200), np.float32))
    eye = gc.constant(np.eye(200, dtype=np.float32))
    step = [a.assign(gc.tanh(a @ eye) @ eye + 1), b.assign((b + 1) @ eye)]
    intel.run(step)
    intel.set_value(a, np.zeros((200, 200)))
    (program,) = [p for p in intel._cache.programs.values() if p.bound]
    (bound,) = program.bound.values()
    launches = list(bound._work)
    assert len(launches) > 2
    interrupt = functools.partial(
        ctypes.CDLL(None)["raise"], int(signal.SIGINT)
    )  # leaves the handling of the signal to Python
    handled: list[int] = []

    def note(*_: Any) -> None:
        handled.append(place)
        raise KeyboardInterrupt

    before_all = signal.signal(signal.SIGINT, note)
    garbage.collect()
    garbage.disable()  # an interrupt inside a destructor is lost, as Python does with exceptions there
    try:
        for place in range(len(launches) + 1):
            bound._work = [*launches[:place], interrupt, *launches[place:]]
            intel.set_value(a, np.zeros((200, 200)))
            before = intel.get_value(b)[0, 0]
            try:
                intel.run(step)
            except KeyboardInterrupt:
                pass
            else:
                pytest.fail(f"at {place} of {len(launches)}: handled at {handled}, but nothing was raised")
            assert (intel.get_value(a) == 1).all() and (intel.get_value(b) == before + 1).all(), place
    finally:
        garbage.enable()
        signal.signal(signal.SIGINT, before_all)
