"""The report in a real browser, in a desktop and a phone layout."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.evaluation import metrics, report
from semanticface.evaluation.report import Figures, Sample, Samples
from semanticface.formats import tables
from semanticface.inference.predictor import Prediction
from semanticface.semantics.analysis import describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.html import write_page
from semanticface.vision.crop import Box

EVIL = '<script>document.title="taken"</script><img src=x onerror=alert(1)>"&\''
SMILE = arkit.vector({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.4, "browInnerUp": 0.5})


def faces(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)])


def picture(width=300, height=200):
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8))


@functools.cache
def results():
    true = faces(20)
    return true, metrics.score(true, faces(20, 1)), metrics.score(true, np.clip(true + 0.02, 0, 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with everything in it, hostile texts included."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    true, before, after = results()
    samples = [
        Sample(EVIL, picture(), SMILE, describe(SMILE), box=Box(200, 20, 290, 110), chip=EVIL, note=EVIL),
        Sample("failed", None, None, reason=EVIL),
        Sample("with truth", picture(100, 300), true[0], describe(true[0], emotion=False), truth=true[1]),
    ]
    write_page(
        path,
        f"Title {EVIL}",
        [Figures(EVIL, [("before", before), (EVIL, after)], EVIL), Samples(EVIL, samples, EVIL)],
        subtitle=EVIL,
        recipe={EVIL: EVIL, "command": "python " + "a/very/long/path/" * 20},
    )
    return path


class _Outline(HTMLParser):
    """Every tag with its attributes, and whether all tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_is_self_contained_escaped_and_well_formed(page):
    outline = _Outline()
    outline.feed(page.read_text(encoding="utf-8"))
    assert outline.open == []
    names = {tag for tag, _ in outline.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in outline.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,"), tag
        assert "href" not in attributes
    assert sum(tag == "img" for tag, _ in outline.tags) == 6  # input, crop, head; input, truth, head
    assert "url(" not in page.read_text() and "@import" not in page.read_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_in_a_browser(page, browser, width, scheme):
    requests, messages = [], []
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.goto(page.as_uri())
    assert tab.title() == f"Title {EVIL}"
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]

    # Nothing overflows, and every picture is loaded.
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    ink, paper = tab.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert _contrast(ink, paper) > 7
    for quiet in tab.locator(".quiet, .reason, td.best, .words dt").all()[:20]:
        colour = quiet.evaluate("e => getComputedStyle(e).color")
        card = tab.locator(".card").first.evaluate("e => getComputedStyle(e).backgroundColor")
        assert _contrast(colour, card) > 4.4

    # Figures are next to both constants.
    heads = tab.locator(".card").first.locator("thead").first.locator("th").all_inner_texts()
    assert heads == ["figure", "before", EVIL, "constant mean", "constant median"]
    assert tab.locator("tbody").first.locator("tr").count() == len(metrics.FIGURES) - 2  # without analyses
    for summary in tab.locator("summary").all():
        summary.click()
    assert tab.locator("th", has_text="mouthSmileLeft").is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == width

    # The analysis and the bars of the first sample.
    card = tab.locator("article").first
    assert card.locator(".headline").inner_text() == describe(SMILE).expression_category
    bar = card.get_by_role("img", name="mouthSmileLeft: prediction 0.80")
    other = card.get_by_role("img", name="mouthSmileRight: prediction 0.40")
    assert bar.bounding_box()["x"] > other.bounding_box()["x"]  # the subject's left is on the right, as in a picture
    longer, shorter = (each.locator("i").bounding_box()["width"] for each in (bar, other))
    assert longer == pytest.approx(2 * shorter, rel=0.02)
    assert card.get_by_role("img", name="browInnerUp: prediction 0.50").count() == 2
    assert card.locator(".bar").count() == 32  # 20 pairs and 12 on the midline: all 52, once
    found = card.locator(".found").bounding_box()
    photo = card.locator(".photo").bounding_box()
    assert (found["x"] - photo["x"]) / photo["width"] == pytest.approx(200 / 300, abs=0.02)
    assert found["height"] / photo["height"] == pytest.approx(90 / 200, abs=0.02)
    assert tab.locator("article").nth(1).locator(".reason").inner_text() == EVIL
    tall = tab.locator("article").nth(2)
    assert tall.locator("dt", has_text="suggests").count() == 0
    assert tall.get_by_role("img", name=re.compile(r"jawOpen: prediction 0\.\d\d, ground truth")).count() == 2
    frame, inside = tall.locator(".frame").first.bounding_box(), tall.locator(".photo").bounding_box()
    assert inside["height"] == pytest.approx(frame["height"], abs=1)
    assert inside["width"] == pytest.approx(frame["width"] / 3, abs=1)
    tab.close()


def _contrast(one, other):
    """WCAG 2 contrast ratio of two CSS rgb() colours."""

    def luminance(colour):
        channels = np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_whisker_spans_the_interval(tmp_path, browser):
    interval = np.stack([0.5 * SMILE, np.minimum(1, SMILE + 0.1)], axis=1)
    write_page(tmp_path / "page.html", "T", [Samples("S", [Sample("s", None, SMILE, truth=SMILE, interval=interval)])])
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.get_by_text("80 % interval").count() == 1
    for name, side, low, high in (("mouthSmileLeft", "left", 0.4, 0.9), ("mouthSmileRight", "right", 0.2, 0.5)):
        shown = tab.get_by_label(f"{name}: prediction")
        assert f"likely {low:.2f} to {high:.2f}" in shown.get_attribute("aria-label")
        track, whisker, bar = (shown.locator(each).bounding_box() for each in (".track", ".likely", "i >> nth=-1"))
        ends = sorted((edge - track["x"]) / track["width"] for edge in (whisker["x"], whisker["x"] + whisker["width"]))
        assert ends == pytest.approx([low, high] if side == "left" else [1 - high, 1 - low], abs=0.01)
        assert whisker["y"] == pytest.approx(bar["y"], abs=1)
    tab.close()


def test_claims_that_do_not_match_are_listed(tmp_path):
    smile, frown = arkit.vector({"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}), arkit.vector({"jawOpen": 0.9})
    for truth, expected in ((None, "match its own numbers."), (frown, "Missing: jawOpen.")):
        write_page(tmp_path / "r.html", "t", [Samples("s", [Sample("a", None, smile, describe(smile), truth=truth)])])
        assert expected in (tmp_path / "r.html").read_text()
    assert "Wrong: " in (tmp_path / "r.html").read_text()


def test_a_face_at_rest(tmp_path):
    write_page(tmp_path / "r.html", "t", [Samples("s", [Sample("a", None, np.zeros(52, np.float32))])])
    text = (tmp_path / "r.html").read_text()
    assert "No action is visible." in text and "32 actions at rest" in text


def test_predictions_of_pictures_on_disk(tmp_path, monkeypatch):
    def write(predictions):
        page = report.PredictionReport()
        assert list(page.watch(iter(predictions))) == predictions
        page.write(tmp_path / "r.html", model="nano")

    picture().save(tmp_path / "a.png")
    smile = arkit.vector({"mouthSmileLeft": 0.9})
    good = Prediction(str(tmp_path / "a.png"), "ok", "", smile, describe(smile), box=Box(0, 0, 300, 200), note="noted")
    bad = Prediction(str(tmp_path / "gone.png"), "missing", "gone.png: no such file.")
    write([good, bad])
    text = (tmp_path / "r.html").read_text()
    for words in ("2 pictures, 1 without an answer", "a.png", "noted", "gone.png: no such file.", "nano"):
        assert words in text
    assert text.count("<img") == 2
    assert 'class="found"' not in text  # a box around the whole picture is not shown
    monkeypatch.setattr(report, "MAX_PREDICTIONS", 1)
    write([good, bad, good])
    text = (tmp_path / "r.html").read_text()
    assert "3 pictures, 1 without an answer. The first 1 are shown" in text
    assert text.count("<article") == 1


def test_predictions_in_a_file(tmp_path):
    picture().save(tmp_path / "a.png")
    smile = arkit.vector({"mouthSmileLeft": 0.9})
    good = Prediction(str(tmp_path / "a.png"), "ok", "", smile, describe(smile), box=Box(10, 20, 60, 70))
    bad = Prediction(str(tmp_path / "gone.png"), "missing", "gone.png: no such file.")
    tables.write(tmp_path / "p.jsonl", [good, bad])
    first, second = report.file_samples(tmp_path / "p.jsonl")
    assert first.title == "a.png" and first.picture.size == (300, 200)
    assert first.box == good.box and first.analysis == good.analysis
    assert np.array_equal(first.predicted, smile)
    assert second.picture is None and "gone.png: no such file." in second.reason


def test_selections():
    errors = np.array([0.3, np.nan, 0.1, 0.2, 0.5, 0.4, 0.6, 0.7])
    worst, best, random = report.selections(errors, 2, seed=0)
    assert worst.tolist() == [1, 7]
    assert best.tolist() == [2, 3]
    assert len(random) == 2 and set(random) <= {0, 4, 5, 6}
    assert report.selections(errors, 2, seed=0)[2].tolist() == random.tolist()
    for count in range(1, 8):
        chosen = np.concatenate(report.selections(np.full(count, np.nan), 6, seed=1))
        assert len(set(chosen)) == len(chosen)
    assert report.selections(np.array([0.1]), 6, seed=1)[0].tolist() == [0]


def test_a_failed_report_leaves_no_file(tmp_path):
    def samples():
        yield Sample("a", picture(), None)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_page(tmp_path / "r.html", "t", [Samples("s", samples())])
    assert list(Path(tmp_path).iterdir()) == []
