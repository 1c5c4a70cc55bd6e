from __future__ import annotations

import io
import logging

from rich.console import Console

from neuralfield.fitting.progress import LiveBar, PlainLog, Report, Silent, duration, log_to, reporter

REPORT = Report(120, 0.25, 1.5e-3, "PSNR 28.50 dB", 40.0, 61.0)


def test_a_line_says_step_loss_psnr_speed_and_time_left() -> None:
    words = REPORT.words()
    for part in ("120", "1.50e-03", "PSNR 28.50 dB", "40.0 steps/s", "1:01 left"):
        assert part in words


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]


def test_a_log_gets_a_line_every_few_seconds_and_the_last_state() -> None:
    stream = io.StringIO()
    log = PlainLog(stream, every=1000.0)
    log.start("title")
    for step in range(500):
        log.update(Report(step, step / 500, 0.1, "PSNR 9.00 dB", 10.0, None))
    log.stop()
    log.stop()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "title"
    assert len(lines) == 2  # the first second brings none, the end brings one
    assert "step 499" in lines[1]
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    bar = LiveBar(Console(file=stream, force_terminal=True, width=150))
    bar.start("title")
    bar.update(REPORT)
    bar.note("a note")
    bar.stop()
    assert "title" in stream.getvalue() and "a note" in stream.getvalue()
    assert "28.50 dB" in stream.getvalue()


def test_the_reporter_suits_the_output() -> None:
    assert type(reporter(False)) is Silent
    assert isinstance(reporter(True), PlainLog)  # tests have no terminal
    log = PlainLog(io.StringIO())
    assert reporter(log) is log


def test_what_the_package_logs_becomes_a_note() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("neuralfield")
    with log_to(PlainLog(stream)):
        logger.info("compiling %s", "loops")
    logger.info("not told any more")
    assert stream.getvalue() == "compiling loops\n"
