"""Pushing to a fake Hub: which files are uploaded, which are not, and the messages."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors.numpy import load_file, save_file

from semanticface import rendering
from semanticface.cli import push
from semanticface.cli.main import main
from semanticface.data.consent import NAME as CONSENT
from semanticface.data.faces import load_faces
from semanticface.data.provenance import PEOPLE_NAME, source_of, write_people
from semanticface.errors import ConfigError
from semanticface.hub import card
from semanticface.hub.card_example import Example
from semanticface.hub.push import push as upload
from semanticface.hub.upload_list import UploadEntry, list_model
from semanticface.inference.predictor import Predictor
from semanticface.models.files import NANO
from semanticface.recipe import read_recipe, write_recipe
from tests.helpers import hub_stand_in
from tests.helpers.hub_models import RENDERED, adapter_of_base
from tests.privacy.test_publish import faces

PARTS = {"README.md", "adapter_config.json", "adapter_model.safetensors", "example.jpg", "semanticface.json"}
SECRET = "hf_" + "AbCdEfGh" * 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base and an adapter of it, with their cards, without rendered examples to save time."""
    folder = tmp_path_factory.mktemp("made")
    adapter = adapter_of_base(folder)
    with pytest.MonkeyPatch.context() as patch:
        shown = (Path(__file__).parents[2] / "docs" / "pictures" / "avatar.jpg").read_bytes()
        patch.setattr(card, "rendered_example", lambda *_: Example(shown, "Faces.", ("photo look",)))
        card.write_card(str(adapter), card.CardSettings(repo="ann/tiny", licence="mit", base="ann/tiny-base"))
        card.write_card(str(folder / "base"), card.CardSettings(repo="ann/tiny-base", licence="mit"))
        card.write_card("nano", card.CardSettings(repo="ann/nano"), folder / "nano-card" / "README.md")
    return folder


@pytest.fixture
def desk(made, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(made, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.fixture
def hub(monkeypatch):
    """The fake Hub, and a client that is configured for it and logged in."""
    with hub_stand_in.serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub_stand_in.TOKEN)
        yield hub


def verdicts(folder, readme=None):
    return {each.name: (each.verdict, each.why) for each in list_model(folder, readme or folder / "README.md")}


def test_only_parts_of_a_model_are_uploaded(desk):
    adapter = desk / "start"
    for name in ("checkpoints/checkpoint-7", "logs", ".git"):
        (adapter / name).mkdir(parents=True)
    save_file({"w": np.zeros(3, np.float32)}, adapter / "model.safetensors")
    torch.save({"state": torch.zeros(3)}, adapter / "notes")
    (adapter / "harmless.txt").write_bytes(pickle.dumps({"a": 1}))
    (adapter / "pytorch_model.bin").write_bytes(b"x")
    (adapter / "optimizer.pt").write_bytes(b"x")
    (adapter / "checkpoints/checkpoint-7/adapter_model.safetensors").write_bytes(b"x")
    (adapter / "rows").write_bytes(b"PAR1....")
    (adapter / "train.jsonl").write_text("{}\n")
    (adapter / "choices.sqlite").write_bytes(b"SQLite format 3\0")
    (adapter / ".env").write_text("A=1\n")
    (adapter / "log.txt").write_text(f"logged in with {SECRET}\n")
    (adapter / ".git/config").write_text("[core]\n")
    (adapter / PEOPLE_NAME).write_text("[]")
    Image.fromarray(rendering.render(np.zeros(52, np.float32), size=64).image).save(adapter / "portrait.png")
    (adapter / "take.mp4").write_bytes(b"x")
    (adapter / "LICENSE").symlink_to(Path(__file__))
    (adapter / "elsewhere").symlink_to(desk)
    found = verdicts(adapter)
    assert {name for name, (verdict, _) in found.items() if verdict == "included"} == PARTS
    assert found["LICENSE"] == ("refused", "a symlink: copy the file itself there")
    expected = {
        "model.safetensors": "its base has its own licence",
        "notes": "a pickle", "harmless.txt": "a pickle", "pytorch_model.bin": "a pickle",
        "optimizer.pt": "an optimizer's state",
        "checkpoints/checkpoint-7/adapter_model.safetensors": "a checkpoint",
        "rows": "data", "train.jsonl": "data", "choices.sqlite": "data",
        ".env": "secrets", "log.txt": "secrets", ".git/config": "not part of a model",
        PEOPLE_NAME: "the people in its training data",
        "portrait.png": "faces need consent", "take.mp4": "faces need consent",
        "elsewhere": "a symlink",
    }  # fmt: skip
    for name, why in expected.items():
        assert found[name][0] == "left out" and why in found[name][1], (name, found[name])
    assert len(found) == len(PARTS) + 1 + len(expected)


def spoil_weights(adapter):
    torch.save({"lora": torch.zeros(3)}, adapter / "adapter_model.safetensors")


def add_base_weights(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(weights | {"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)},
              adapter / "adapter_model.safetensors")  # fmt: skip


def tell_a_secret(adapter):
    with (adapter / "README.md").open("a") as file:
        file.write(f"\nUse my token {SECRET}.\n")


def swap_the_picture(adapter):
    (adapter / "example.jpg").write_bytes((adapter / "example.jpg").read_bytes() + b"x")


def show_a_person(adapter):
    text = (adapter / "README.md").read_text()
    (adapter / "README.md").write_text(text.replace('"rendered"', '""'))


def show_another(adapter):
    (adapter / "README.md").write_text((adapter / "README.md").read_text() + "\n![me](me.jpg)\n")


def hold_a_face(adapter):
    with (adapter / "README.md").open("a") as file:
        file.write("\n![me][face]\n\n[face]: data:image/jpeg;base64,/9j/4AAQ\n")


def link_to_people(adapter):
    (adapter / PEOPLE_NAME).write_text("[]")
    (adapter / "NOTICE").symlink_to(PEOPLE_NAME)


def tell_where_it_lies(adapter):
    with (adapter / "README.md").open("a") as file:
        file.write(f"\nMade in {adapter.parent / 'ann'}.\n")


def tell_a_secret_beside_weights(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt", "token": SECRET})


def drop_the_front_matter(adapter):
    (adapter / "README.md").write_text("# tiny\n")


def spoil_the_config(adapter):
    (adapter / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "name", "why"),
    [
        (spoil_weights, "adapter_model.safetensors", "a pickle, which can run any code"),
        (add_base_weights, "adapter_model.safetensors", "lm_head.weight: the base has its own licence"),
        (tell_a_secret, "README.md", "looks like a token"),
        (swap_the_picture, "example.jpg", "not the picture that `semanticface card` wrote"),
        (show_a_person, "example.jpg", "document their consent"),
        (show_another, "README.md", "shows me.jpg, which is not uploaded"),
        (hold_a_face, "README.md", "embeds a picture or another file"),
        (link_to_people, "NOTICE", "a symlink: copy the file itself there"),
        (tell_where_it_lies, "README.md", "a path on this machine"),
        (tell_a_secret_beside_weights, "adapter_model.safetensors", "looks like a token"),
    ],
)
def test_an_invalid_part_stops_the_push(spoil, name, why, desk, hub, capsys):
    spoil(desk / "start")
    assert verdicts(desk / "start")[name][0] == "refused"
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    out, err = capsys.readouterr()
    assert why in out and f"refused: {name}. Nothing was uploaded" in err and SECRET not in out + err
    assert not hub.asked and not hub.repos


def test_the_path_of_a_base_is_not_published(desk):
    base = desk / "base"
    for name in ("config.json", "tokenizer_config.json"):
        config = json.loads((base / name).read_text())
        config |= {"_name_or_path": "/data/ann/models/eve", "inner": [{"name_or_path": "C:\\ann\\eve"}]}
        (base / name).write_text(json.dumps(config))
    for each in list_model(base, base / "README.md"):
        sent = each.path.read_bytes() if each.content is None else each.content
        assert each.verdict == "included" and b"ann/models" not in sent and b"ann\\" not in sent
    config = next(json.loads(each.content) for each in list_model(base, None) if each.name == "config.json")
    assert config["_name_or_path"] == config["inner"][0]["name_or_path"] == "eve"
    assert config.items() >= {"architectures": json.loads((base / "config.json").read_text())["architectures"]}.items()


def test_a_card_without_front_matter_and_a_broken_config_are_refused(desk):
    recipe = read_recipe(desk / "start")
    recipe["base"] |= {"name": "nano"}  # otherwise the card must name the base's id
    write_recipe(desk / "start", recipe)
    spoil_the_config(desk / "start")
    drop_the_front_matter(desk / "start")
    found = verdicts(desk / "start")
    assert found["README.md"][0] == "refused" and "no front matter" in found["README.md"][1]
    assert found["adapter_config.json"][0] == "refused" and "cannot be read" in found["adapter_config.json"][1]


def test_a_dry_run_only_lists(desk, hub, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", "start", "ann/tiny", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("Dry run: nothing was uploaded")
    for name in PARTS:
        assert any(line.split()[:2] == ["included", name] for line in out.splitlines()), name
    assert "model ann/tiny, private" in out and f"{len(PARTS)} of {len(PARTS)} files" in out
    assert not hub.asked


@pytest.mark.parametrize(("reply", "code"), [("y", 0), ("", 1), ("n", 1)])
def test_it_asks_for_confirmation(reply, code, desk, hub, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(push.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or reply)
    assert main(["push", "start", "ann/tiny"]) == code
    assert asked == ["Upload this to ann/tiny, private? [y/N] "]
    assert bool(hub.asked) == (code == 0)


def test_without_a_terminal_it_needs_yes(desk, hub, capsys):
    assert main(["push", "start", "ann/tiny"]) == 2
    assert "pass --yes" in capsys.readouterr().err and not hub.asked


def test_the_repository_after_a_push(desk, hub, capsys):
    recipe = read_recipe(desk / "start")
    recipe["settings"] = recipe["settings"] | {"dataset": str(desk / "private" / "faces")}
    write_recipe(desk / "start", recipe)
    assert main(["push", "start", "ann/tiny", "--yes"]) == 0
    out, err = capsys.readouterr()
    repo = hub.repos["models", "ann/tiny"]
    assert repo.private and len(repo.commits) == 2  # the initial commit, and one with everything
    files = hub.files("ann/tiny")
    assert set(files) == PARTS | {".gitattributes"}
    for name in PARTS - {"semanticface.json", "adapter_config.json"}:
        assert files[name] == (desk / "start" / name).read_bytes()
    sent = json.loads(files["semanticface.json"])
    assert sent["base"]["name"] == "ann/tiny-base" and sent["base"]["sha256"] == recipe["base"]["sha256"]
    assert sent["settings"]["dataset"] == "faces"
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "ann/tiny-base"
    assert not [name for name, content in files.items() if str(desk).encode() in content]
    assert ModelCard(files["README.md"].decode()).data.base_model == "ann/tiny-base"
    assert f"{hub.url}/ann/tiny: 5 files, verified; private; commit {repo.head[0]}" in out
    assert hub_stand_in.TOKEN not in out + err
    # Again: without a change nothing is committed. After a change, other files in the repository stay.
    assert main(["push", "start", "ann/tiny", "--yes"]) == 0 and len(repo.commits) == 2
    repo.commit(files | {"theirs.txt": b"x"})
    with (desk / "start" / "README.md").open("a") as file:
        file.write("\nMore.\n")
    assert main(["push", "start", "ann/tiny", "--yes"]) == 0
    assert "also there, from before: theirs.txt" in capsys.readouterr().out
    assert hub.files("ann/tiny")["README.md"].endswith(b"More.\n")


def test_public_must_be_explicit(desk, hub, capsys):
    assert main(["push", "base", "ann/tiny-base", "--public", "--yes"]) == 0
    assert not hub.repos["models", "ann/tiny-base"].private and "; public; commit" in capsys.readouterr().out
    commits = len(hub.repos["models", "ann/tiny-base"].commits)
    assert main(["push", "base", "ann/tiny-base", "--yes"]) == 2
    assert "exists and is public: pass --public" in capsys.readouterr().err
    hub.repos["models", "ann/tiny-base"].private = True
    assert main(["push", "base", "ann/tiny-base", "--public", "--yes"]) == 2
    assert "exists and is private" in capsys.readouterr().err
    assert len(hub.repos["models", "ann/tiny-base"].commits) == commits


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ({"GET /api/whoami-v2": 401}, "does not accept your token (401)"),
        ({"POST /api/repos/create": 403}, "may not write to ann (403)"),
        ({"POST /api/models/ann/tiny/commit": 403}, "may not write to ann (403)"),
        ({"POST /api/models/ann/tiny/commit": 409}, "changed by someone else meanwhile (409)"),
        ({"POST /api/models/ann/tiny/commit": 503}, "busy or broken (503)"),
        ({"POST /api/models/ann/tiny/preupload": 418}, "refused the upload to ann/tiny (418)"),
        ({"POST /api/models/ann/tiny/preupload": 400}, "refused the upload to ann/tiny (400): refused with 400."),
        ({"POST /api/validate-yaml": 400}, "refused with 400"),
        ({"PUT /large": 403}, "may not write to ann (403)"),
    ],
)
def test_refusals_of_the_hub_are_explained(refuse, message, desk, hub, capsys):
    hub.refuse |= refuse
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    out, err = capsys.readouterr()
    assert message in err.splitlines()[-1] and "Traceback" not in err  # progress bars may precede it
    assert hub_stand_in.TOKEN not in out + err
    assert all(len(repo.commits) == 1 for repo in hub.repos.values())


def test_an_unknown_licence_stops_before_a_repository_is_made():
    card_text = b"---\nlanguage: en\nlicense: gpl-3.0-or-later\n---\nlicense: mit\n"
    entry = UploadEntry("README.md", Path("README.md"), len(card_text), "included", "", card_text)
    with pytest.raises(ConfigError, match=r"the Hub has no licence of that id\. Did you mean gpl-3\.0"):
        upload([entry], "ann/tiny")


def test_login_permission_and_connection_errors(desk, hub, capsys, monkeypatch, tmp_path):
    assert main(["push", "start", "someone/tiny", "--yes"]) == 2
    assert "may not write to someone (403)" in capsys.readouterr().err
    assert main(["push", "start", "tiny", "--yes"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
    assert main(["push", "start", "ann/ti ny", "--yes"]) == 2
    assert "is not a valid name on the Hub" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", hub_stand_in.TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    assert not hub.repos


def test_a_concurrent_commit_is_not_overwritten(desk, hub, capsys):
    hub.race = True
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "changed by someone else meanwhile (412)" in capsys.readouterr().err
    assert "README.md" not in hub.files("ann/tiny") and "theirs.txt" in hub.files("ann/tiny")


def test_corrupted_uploads_are_detected(desk, hub, capsys):
    hub.spoil |= {"adapter_model.safetensors", "semanticface.json"}
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    printed = capsys.readouterr().err
    assert "does not have adapter_model.safetensors, semanticface.json as uploaded" in printed


def test_people_must_have_agreed_to_be_published(desk, hub, capsys):
    takes = faces(desk / "takes", ["ann", "ben"], "captures")
    source = source_of(load_faces(takes, "train"), takes, "train")
    recipe = read_recipe(desk / "start")
    write_recipe(desk / "start", recipe | {"trained_on": [RENDERED.to_dict(), source.to_dict()]})
    write_people(desk / "start", [RENDERED, source])
    allowed = "  {}: {{reference: form 7, uses: [train, publish]}}\n"
    trained = "  {}: {{reference: form 7, uses: [train]}}\n"
    (takes / CONSENT).write_text("subjects:\n" + allowed.format("ann") + trained.format("ben"))
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    printed = capsys.readouterr().err
    assert "ben agreed to train, not to publish" in printed and not hub.asked
    (takes / CONSENT).write_text("subjects:\n" + allowed.format("ann") + allowed.format("ben"))
    assert main(["push", "start", "ann/tiny", "--yes"]) == 0
    assert PEOPLE_NAME not in hub.files("ann/tiny")
    shutil.rmtree(takes)
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "whose people are not known" in capsys.readouterr().err


def test_a_local_base_must_have_a_name_on_the_hub(desk, hub, capsys):
    readme = desk / "start" / "README.md"
    readme.write_text("".join(line for line in readme.open() if not line.startswith("base_model")))
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "--base OWNER/NAME" in capsys.readouterr().err
    readme.unlink()
    assert main(["push", "start", "ann/tiny", "--yes"]) == 2
    assert "write the model's card first, semanticface card" in capsys.readouterr().err
    assert main(["push", "nano", "ann/nano", "--yes"]) == 2
    assert "--card nano-card/README.md" in capsys.readouterr().err
    assert not hub.asked


LOAD = """
from semanticface.cli.main import main
assert main("push nano ann/nano --card nano-card/README.md --yes".split()) == 0
import json, sys
from semanticface.inference.predictor import Predictor
for name in sys.argv[2:]:
    found, = Predictor.from_pretrained(name)([sys.argv[1]], crop="none")
    print(json.dumps([found.status, found.coefficients.tolist(), found.text]))
"""


@pytest.mark.slow
def test_a_pushed_model_loads_and_answers_the_same(desk, hub, tmp_path):
    """Another process, configured only by HF_ENDPOINT, pushes and loads."""
    picture = tmp_path / "face.png"
    Image.fromarray(rendering.render(np.zeros(52, np.float32), size=128, framing="crop").image).save(picture)
    for folder, name in (("base", "ann/tiny-base"), ("start", "ann/tiny")):
        assert main(["push", folder, name, "--yes"]) == 0
    shutil.move(desk / "base", tmp_path / "away")  # the adapter must load its base from the Hub
    here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub_stand_in.TOKEN, "HF_HOME": str(tmp_path / "home")}
    environment = os.environ | here | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, picture, "ann/nano", "ann/tiny"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pushed, *there = done.stdout.splitlines()[-3:]
    assert f"{hub.url}/ann/nano" in pushed and hub.repos["models", "ann/nano"].private
    assert hub.files("ann/nano")["model.safetensors"] == (NANO / "model.safetensors").read_bytes()
    there = [json.loads(line) for line in there]
    shutil.move(tmp_path / "away", desk / "base")
    for (status, coefficients, text), name in zip(there, ("nano", "start"), strict=True):
        (found,) = Predictor.from_pretrained(name)([picture], crop="none")
        assert (status, text) == (found.status, found.text) and status == "ok"
        assert coefficients == found.coefficients.tolist()
