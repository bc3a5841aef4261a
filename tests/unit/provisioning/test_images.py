from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import APIError

from toolkit import engine, paths
from toolkit.errors import UnreachableError, UsageError
from toolkit.provisioning import base_system, images
from toolkit.provisioning.images import Builder, available_images, check_runnable, content_of, recipe
from toolkit.spec.testbed import Image

DOCKERFILE = """ARG BASE=debian:bookworm-slim
FROM ${BASE}
COPY toolkit/contract /opt/toolkit/contract
COPY --chown=root:root images/broker/start.sh \\
     /start.sh
COPY --from=build /out /out
CMD ["/start.sh"]
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree of its own: images/broker, images/child (built on broker), and a small package."""
    files = {
        "images/broker/Dockerfile": DOCKERFILE,
        "images/broker/start.sh": "#!/bin/sh\n",
        "images/broker/README": "not copied\n",
        "images/child/Dockerfile": "ARG BASE=toolkit/broker\nFROM ${BASE}\nCOPY toolkit /opt/toolkit\n",
        "toolkit/__init__.py": "",
        "toolkit/errors.py": "",
        "toolkit/contract/__init__.py": "",
        "toolkit/contract/__pycache__/x.pyc": "",
        "toolkit/node/__init__.py": "",
        "toolkit/cli/__init__.py": "operators only",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(paths, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(paths, "SOURCE", tmp_path / "toolkit")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    note = {"reference": "toolkit/base:bookworm-amd64", "identity": "abc", "source": "packages"}
    (tmp_path / "cache/base-bookworm-amd64.json").write_text(json.dumps(note))
    return tmp_path


def _content(name: str, base: str = "abc", architecture: str = "amd64") -> str:
    return content_of(recipe(name), base, architecture)


def test_the_context_holds_exactly_what_the_dockerfile_copies(tree: Path) -> None:
    assert set(recipe("broker").files) == {
        "images/broker/Dockerfile",
        "images/broker/start.sh",
        "toolkit/contract/__init__.py",
    }


def test_an_image_can_hold_only_the_part_of_the_package_that_runs_on_nodes(tree: Path) -> None:
    assert set(recipe("child").files) == {
        "images/child/Dockerfile",
        "toolkit/__init__.py",
        "toolkit/contract/__init__.py",
        "toolkit/errors.py",
        "toolkit/node/__init__.py",
    }


def test_a_file_of_another_image_can_be_copied_too(tree: Path) -> None:
    (tree / "images/child/Dockerfile").write_text("FROM scratch\nCOPY images/broker/start.sh /start\n")
    assert set(recipe("child").files) == {"images/child/Dockerfile", "images/broker/start.sh"}
    before = _content("child")
    (tree / "images/broker/start.sh").write_text("#!/bin/sh\nexit 1\n")
    assert _content("child") != before


def test_content_changes_with_what_is_copied_and_with_nothing_else(tree: Path) -> None:
    before = _content("broker")
    (tree / "images/broker/README").write_text("changed")
    (tree / "toolkit/node/__init__.py").write_text("changed")
    os.utime(tree / "images/broker/start.sh", (1, 1))
    assert _content("broker") == before
    (tree / "toolkit/contract/__init__.py").write_text("changed")
    assert _content("broker") != before


def test_content_changes_with_base_architecture_and_executable_bit(tree: Path) -> None:
    before = _content("broker")
    assert _content("broker", base="def") != before
    assert _content("broker", architecture="arm/v7") != before
    (tree / "images/broker/start.sh").chmod(0o755)
    assert _content("broker") != before


def test_a_changed_parent_changes_its_children(tree: Path) -> None:
    key = ("child", "amd64")
    before = Builder(lambda _: None).references([key])[key]
    (tree / "images/broker/start.sh").write_text("changed")
    assert Builder(lambda _: None).references([key])[key] != before


def test_references_name_the_content_and_are_found_without_an_engine(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_engine(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(engine, "connect", no_engine)
    found = Builder(lambda _: None).references([("broker", "amd64"), ("broker", "arm/v7")])
    amd64, arm = found["broker", "amd64"], found["broker", "arm/v7"]
    assert amd64.reference == f"toolkit/broker:{amd64.content}"
    assert amd64.content == _content("broker")
    assert arm.content != amd64.content


def test_one_builder_gives_one_answer_while_sources_change(tree: Path) -> None:
    builder = Builder(lambda _: None)
    before = builder.references([("broker", "amd64")])
    (tree / "images/broker/start.sh").write_text("changed")
    assert builder.references([("broker", "amd64")]) == before


def test_parents_are_built_before_children(tree: Path) -> None:
    assert list(Builder(lambda _: None)._ranks([("child", "amd64")])) == [[("broker", "amd64")], [("child", "amd64")]]


def test_a_name_of_the_file_can_mean_a_folder_or_somebody_elses_image(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "inspect_image", lambda _: {"Id": "sha256:" + "7" * 64, "Architecture": "amd64"})
    named = [Image(name="mine", build="broker"), Image(name="grafana", reference="grafana/grafana:11.6.0")]
    found = Builder(lambda _: None, named).references([("mine", "amd64"), ("grafana", "amd64"), ("grafana", "arm64")])
    assert found["mine", "amd64"].reference.startswith("toolkit/broker:")
    assert found["grafana", "amd64"].reference == "grafana/grafana:11.6.0"
    assert found["grafana", "amd64"].content == "7" * 16
    assert found["grafana", "arm64"].content == ""


def test_an_unknown_image_names_the_known_ones(tree: Path) -> None:
    with pytest.raises(UsageError, match="known: broker, child"):
        recipe("brokr")
    assert available_images() == ["broker", "child"]


def test_what_cannot_be_built_is_told_together(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Builder, key: images.Wanted) -> None:
        raise UnreachableError(f"{key[0]} cannot be had")

    monkeypatch.setattr(Builder, "_pull", fail)
    with pytest.raises(UnreachableError) as caught:
        Builder(lambda _: None, [Image(name=n, reference=f"{n}:1") for n in "abcd"]).build(
            {(n, "amd64") for n in "abcd"}
        )
    assert str(caught.value).splitlines() == [f"{name} cannot be had" for name in "abcd"]


def test_the_context_is_the_same_archive_every_time(tree: Path) -> None:
    first = images._context(recipe("broker")).read()
    os.utime(tree / "images/broker/start.sh", (1, 1))
    assert images._context(recipe("broker")).read() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert {entry.mtime for entry in archive} == {0}


@pytest.mark.parametrize(
    ("instruction", "sources"),
    [
        ("COPY a b /dst", ["a", "b"]),
        ('COPY ["a b", "/dst"]', ["a b"]),
        ("ADD ./x/ /dst", ["x"]),
        ("COPY --chmod=0755 --chown=a:b x /dst", ["x"]),
        ("COPY --from=build /x /dst", []),
        ("# COPY x /dst", []),
        ("RUN echo COPY x y", []),
    ],
)
def test_sources_of_copy_are_found(instruction: str, sources: list[str]) -> None:
    assert images._copied(instruction) == sources


def test_every_image_of_the_product_copies_only_what_exists() -> None:
    for name in available_images():
        made_of = recipe(name)
        for pattern in images._copied((paths.IMAGES / name / "Dockerfile").read_text()):
            assert any(images._covers(pattern, path) for path in made_of.files), (name, pattern)


def test_an_architecture_without_an_emulator_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "architecture", lambda: "amd64")
    monkeypatch.setattr(images, "BINFMT", tmp_path)
    found: dict[str, str] = {}
    monkeypatch.setattr(images.shutil, "which", found.get)
    check_runnable("amd64")
    with pytest.raises(UnreachableError, match="apt-get install qemu-user-static"):
        check_runnable("arm/v7")
    found["qemu-arm-static"] = "/usr/bin/qemu-arm-static"  # which no service manager put into the kernel's list
    with pytest.raises(UnreachableError, match=r"mount -t binfmt_misc none .* && update-binfmts --enable qemu-arm"):
        check_runnable("arm/v7")
    (tmp_path / "register").touch()
    with pytest.raises(UnreachableError, match=r"sh -c 'update-binfmts --enable qemu-arm'"):
        check_runnable("arm/v6")
    (tmp_path / "qemu-arm").write_text("enabled\ninterpreter /usr/bin/qemu-arm-static\nflags: F\n")
    check_runnable("arm/v7")
    check_runnable("arm/v6")


def test_an_arm64_machine_runs_32_bit_arm_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "architecture", lambda: "arm64")
    monkeypatch.setattr(images, "BINFMT", tmp_path)
    check_runnable("arm/v7")
    with pytest.raises(UnreachableError, match="amd64"):
        check_runnable("amd64")


def test_without_registry_and_mmdebstrap_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreachableError, match="mmdebstrap"):
        base_system._debootstrap(tmp_path / "base.tar", "amd64", lambda _: None)


def test_why_no_base_system_can_be_made_is_told_in_the_words_of_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]' >&2\n"
        "echo 'E: Failed to fetch Packages.xz  File has unexpected size. Mirror sync in progress?' >&2\n"
        "echo 'I: removing tempdir' >&2\n"
        "exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnreachableError, match=r"said:\nE: Failed to fetch .* Mirror sync in progress\?$"):
        base_system._debootstrap(tmp_path / "base.tar", "arm/v7", lambda _: None)


@pytest.mark.parametrize(
    ("reference", "split"),
    [
        ("debian", ("debian", "latest")),
        ("grafana/grafana:11.6.0", ("grafana/grafana", "11.6.0")),
        ("localhost:5000/x", ("localhost:5000/x", "latest")),
        ("ghcr.io/x/y@sha256:abc", ("ghcr.io/x/y", "sha256:abc")),
    ],
)
def test_references_are_split_into_repository_and_tag(reference: str, split: tuple[str, str]) -> None:
    assert engine.split_reference(reference) == split


def test_an_engine_that_is_not_there_or_not_ours_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="make setup"):
        engine.connect(f"unix://{tmp_path}/docker.sock")


def test_images_of_no_container_are_unused_also_those_that_lost_their_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def there(number: str, *tags: str) -> dict[str, object]:
        return {"Id": f"sha256:{number}", "RepoTags": list(tags)}

    removed: list[str] = []

    class Api:
        def containers(self, all: bool) -> list[dict[str, str]]:  # noqa: A002 - the engine's word
            assert all
            return [{"Image": "toolkit/used:1"}, {"Image": "sha256:3"}]

        def images(self, filters: dict[str, str]) -> list[dict[str, object]]:
            assert filters == {"label": images.CONTENT}
            return [
                there("1", "toolkit/used:1", "127.0.0.1:5000/toolkit/used:1"),
                there("2", "toolkit/old:2"),
                there("3", images.UNTAGGED),  # an older engine's word, and a container's
                there("4", images.UNTAGGED),
                there("5"),
            ]

        def remove_image(self, name: str) -> None:
            if name == "sha256:5":
                raise APIError("in use meanwhile")
            removed.append(name)

    monkeypatch.setattr(engine, "connect", lambda: SimpleNamespace(api=Api()))
    assert images.unused_images() == ["sha256:4", "sha256:5", "toolkit/old:2"]
    assert images.remove_images() == ["sha256:4", "toolkit/old:2"] == removed
