"""The page as a person uses it, in a real browser, with a microphone that plays a clip."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import noisy, running_server
from playwright.sync_api import Browser, Page, expect, sync_playwright

from speechemo_cli.files import sha256_file
from speechemo_cli.inference.predictor import Answer, Predictor

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone plays, again and again."""
    path = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(path, noisy(np.random.default_rng(440), 1.5, 48000, 180), 48000)
    return path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server("--model", "packaged") as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser(voice: Path) -> Iterator[Browser]:
    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={voice}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    """Open the page anew; an error in its script, or what its policy stops, fails."""
    errors: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Security Policy" in line.text else None)
        page.goto(address)
        expect(page.locator("#licence")).to_contain_text("ravdess")
        yield page
    assert errors == []


def predicted(path: Path) -> Answer:
    (answer,) = Predictor.open().predict_one(path)
    assert isinstance(answer, Answer)
    return answer


def drop(page: Page, path: Path) -> None:
    """Let a file fall on the page."""
    page.evaluate(
        """([content, name]) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], name));
            document.querySelector("#drop").dispatchEvent(
                new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name],
    )


def answered(page: Page) -> str:
    """Return the label, once the answer is whole."""
    expect(page.locator("#status")).to_have_text(re.compile(r".+, \d+:\d\d\.\d"), timeout=30000)
    label = page.locator("#label").get_attribute("data-label")
    assert label is not None
    return label


def test_page_shows_predicts_answer_for_a_file_that_is_dropped(
    page: Page, write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    clip = write_clip("a <b>.wav", y=np.clip(4 * noisy(rng, 0.8, 16000), -1, 1), sr=16000)

    drop(page, clip)
    answer = predicted(clip)

    assert answered(page) == answer.label
    shown = page.locator("#bars tr").all_inner_texts()
    assert [line.split()[0] for line in shown] == list(answer.probabilities)
    assert [line.split()[-2] for line in shown] == [f"{100 * p:.0f}" for p in answer.probabilities.values()]
    assert page.locator("#warnings li").all_inner_texts() == list(answer.warnings) != []
    assert "unseen speakers" in page.inner_text("#worth")
    assert "CC BY-NC-SA 4.0" in page.inner_text("#licence")
    assert page.locator("#timeline").is_hidden()


def test_page_shows_the_timeline_of_a_longer_recording(
    page: Page, write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    pause = 0.0005 * rng.standard_normal(32000)
    parts = [noisy(rng, 3.0, 16000, f0) for f0 in (110, 280, 170)]
    clip = write_clip("long.wav", y=np.concatenate([y for part in parts for y in (part, pause)]), sr=16000)

    page.set_input_files("#file", clip)
    answered(page)

    assert page.locator("#segments tbody tr").count() == 3
    painted = "new Set(document.querySelector('.wave').getContext('2d').getImageData(0, 5, 600, 1).data).size"
    assert page.evaluate(painted) > 2


@pytest.mark.slow
def test_page_answers_for_what_the_microphone_plays_sample_by_sample(
    page: Page, voice: Path, tmp_path: Path
) -> None:
    page.evaluate("() => { const made = wav; wav = (...recorded) => (window.kept = made(...recorded)); }")
    with page.expect_response("**/predict*") as response:
        page.focus("#record")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_have_text(re.compile(r"Recording: 0:0[3-9]"), timeout=30000)
        page.keyboard.press("Enter")
    label = answered(page)

    recorded = tmp_path / "recorded.wav"
    content = page.evaluate(
        """() => new Promise((done) => {
            const reader = new FileReader();
            reader.onload = () => done(reader.result.split(",")[1]);
            reader.readAsDataURL(kept);
        })"""
    )
    recorded.write_bytes(base64.b64decode(content))
    assert response.value.json()["clips"][0]["sha256"] == sha256_file(recorded)
    assert label == predicted(recorded).label
    y, sr = soundfile.read(recorded)
    played = soxr.resample(soundfile.read(voice)[0], 48000, sr)
    spectrum = np.fft.rfft(y, 2**19) * np.conj(np.fft.rfft(played, 2**19))
    at = int(np.fft.irfft(spectrum)[: len(y) - len(played)].argmax())
    assert np.corrcoef(y[at : at + len(played)], played)[0, 1] > 0.99


def test_page_says_why_a_file_has_no_answer(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no sound at all")

    drop(page, tmp_path / "notes.wav")
    page.wait_for_selector("#status.error")

    assert page.inner_text("#status").startswith("notes.wav: not audio")
    assert page.locator("#answer").is_hidden()
