# A real release of huggingface_hub works on a cache before and after mlx-cache has deduped it.
# Arguments: the mlx-cache program, a strategy, the commits of org/one (older, newer) and of org/two.
import contextlib
import glob
import io
import json
import os
import subprocess
import sys

import huggingface_hub as hub

program, strategy, older, newer, other = sys.argv[1:]
home = os.environ["HOME"]
studio = os.path.join(home, ".lmstudio/models/publisher/name")


def cli(*args):
    from huggingface_hub.cli.hf import main

    told = io.StringIO()
    sys.argv = ["hf", *args]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            assert end.code in (0, None), (args, end.code, told.getvalue())
    return told.getvalue()


def ours(*args):
    done = subprocess.run([program, *args, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return json.loads(done.stdout)["data"]


def read(*folders):
    found = {}
    for folder in folders:
        for name in glob.glob(folder + "/**", recursive=True):
            if os.path.isfile(name):
                with open(name, "rb") as file:
                    found[name] = file.read()
    assert found
    return found


def scanned():
    info = hub.scan_cache_dir()
    assert not info.warnings, info.warnings
    return sorted(
        (repo.repo_id, repo.nb_files, repo.size_on_disk, sorted(r.commit_hash for r in repo.revisions))
        for repo in info.repos
    )


def blobs():
    cache = os.path.join(home, ".cache/huggingface/hub")
    return {name: os.lstat(name).st_ino for name in glob.glob(cache + "/models--*/blobs/*")}


def delete(*commits):
    hub.scan_cache_dir().delete_revisions(*commits).execute()


def fetch(repo, commit):
    # What no branch names is detached: prune takes it.
    return hub.snapshot_download(repo, revision=older if commit == older else None)


def has_command(name):
    release = tuple(int(part) for part in hub.__version__.split(".")[:2])
    return release >= (1, 0)


first, second, third = fetch("org/one", older), fetch("org/one", newer), fetch("org/two", other)
before, answer = read(first, second, third, studio), scanned()

data = ours("dedupe", "--apply", "--yes", "--strategy", strategy, "--min-size", "0")
done = {f["path"] for g in data["groups"] for f in g["replace"] if f["done"]}
assert any("models--org--" in path for path in done), data
assert any(".lmstudio" in path for path in done) or strategy != "symlink", data
assert data["bytes_reclaimed"] > 0, data

# Nothing looks any different to the tool.
assert scanned() == answer
assert read(first, second, third, studio) == before
files = blobs()
assert (fetch("org/one", older), fetch("org/one", newer)) == (first, second)
assert blobs() == files, "something was downloaded again"
if has_command("verify"):
    for commit in (older, newer):
        cli("cache", "verify", "org/one", "--revision", commit)

# One of two revisions goes: nobody else loses anything.
delete(older)
assert not os.path.exists(first)
kept = {name: content for name, content in before.items() if not name.startswith(first + "/")}
assert read(second, third, studio) == kept
assert fetch("org/one", older) == first
assert read(first, second, third, studio) == before, "fetched again"

# Deduped again, detached revisions are pruned and the whole repository is deleted.
ours("dedupe", "--apply", "--yes", "--strategy", strategy, "--min-size", "0")
assert read(first, second, third, studio) == before
if has_command("prune"):
    cli("cache", "prune", "--yes")
    assert read(second, third, studio) == kept
    fetch("org/one", older)
delete(older, newer)
assert [entry[0] for entry in scanned()] == ["org/two"]
left = {name: content for name, content in kept.items() if not name.startswith(second + "/")}
assert read(third, studio) == left

# What is undone is the tools' own again.
data = ours("dedupe", "--undo", "--yes")
assert all(link["outcome"] in ("restored", "forgotten") for link in data["undone"]), data
assert read(third, studio) == left
links = [name for name in [*blobs(), *read(studio)] if not os.path.isfile(name) or os.path.islink(name)]
assert not links, (links, data)
assert fetch("org/two", other) == third
assert subprocess.run([program, "gc", "--yes"], capture_output=True).returncode == 0
assert read(third, studio) == left
print("all of it held")
