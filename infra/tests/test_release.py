"""Makes a release from fake executables, serves it on this machine, and installs from it."""

import functools
import hashlib
import http.server
import io
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import unittest
import zipfile

import project
import yaml
from emulator import Emulator
from test_scripts import Tools

VERSION = re.search(r'(?ms)^\[workspace\.package\]\nversion = "(.*?)"', project.text("Cargo.toml"))[1]
RELEASE = f"v{VERSION}"
MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = ("x86_64", "arm64")
DROVER = "#!/bin/sh\necho drover 9.9.9\n"
FILES = {
    *(f"{function}-{architecture}.zip" for function in project.FUNCTIONS for architecture in ARCHITECTURES),
    *(f"agent-{architecture}" for architecture in ARCHITECTURES),
    *(f"drover-{machine}-{system}.tar.gz" for machine in MACHINES for system in ("unknown-linux-gnu", "apple-darwin")),
    *(f"{crate}.cdx.json" for crate in (*project.FUNCTIONS, "agent", "cli")),
    "template.yaml",
    "terraform.tar.gz",
    "install.sh",
    "SHA256SUMS",
}


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Checkout:
    """A committed copy of the files that a release is made of, with a cargo that builds nothing."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-release-")))
        self.checkout, self.target = self.folder / "checkout", self.folder / "cache/target"
        self.checkout.mkdir()
        for name in ("infra", "terraform"):
            shutil.copytree(
                project.ROOT / name,
                self.checkout / name,
                ignore=shutil.ignore_patterns("tests", ".terraform", "*.tfstate*", "*_override.tf", "__pycache__"),
            )
        for name in ("Cargo.toml", "template.yaml", "LICENSE-MIT", "LICENSE-APACHE"):
            shutil.copy(project.ROOT / name, self.checkout)
        for crate in (*project.FUNCTIONS, "agent", "cli"):
            (self.checkout / crate).mkdir()
        for name in (*project.FUNCTIONS, "agent", "drover"):
            for path in (
                self.target / f"lambda/{name}/bootstrap",
                *(self.target / f"{machine}-apple-darwin/release/{name}" for machine in MACHINES),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(DROVER, encoding="utf-8")
                path.chmod(0o755)
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "a")

    def git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.checkout, check=True, capture_output=True)

    def tools(self, **others):
        cargo = f"""case "$1" in
            metadata) echo '{{"target_directory": "{self.target}"}}';;
            cyclonedx) for it in ingest scaler janitor agent cli; do echo "{{}}" >$it/$it.cdx.json; done;;
        esac"""
        return Tools(self, cargo=cargo, rustup="", **{"gh": "exit 1", **others})

    def run_in_checkout(self, tools, *command, **environment):
        given = {"CARGO_TARGET_DIR": str(self.target), "RELEASE": RELEASE, "LINK": "", **environment}
        return tools.run(*command, checkout=self.checkout, **given)

    def make(self, *parts, folder="releases", **environment):
        """Makes the parts of a release. Returns the result of the last one, its folder and all calls."""
        tools, to = self.tools(), self.folder / folder / RELEASE
        for part in parts:
            given = {"DROVER_REPOSITORY": "octo-org/drover", **environment}
            done = self.run_in_checkout(tools, "infra/release", part, str(to), **given)
        return done, to, tools.calls()

    def serve(self):
        """Makes a release and serves it. Returns its folder and the address of the server."""
        done, folder, _ = self.make("linux", "macos", "finish")
        self.assertEqual(done.returncode, 0, done.stderr)
        handler = functools.partial(QuietFiles, directory=str(folder.parent))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return folder, f"http://127.0.0.1:{server.server_port}"


class Release(Checkout, unittest.TestCase):
    def test_a_release_has_every_file_and_their_checksums(self):
        done, folder, calls = self.make("linux", "macos", "finish")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({it.name for it in folder.iterdir()}, FILES)
        sums = dict(reversed(it.split()) for it in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
        actual = {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in folder.iterdir()}
        self.assertEqual(sums, {name: sha for name, sha in actual.items() if name != "SHA256SUMS"})
        # The functions and the agent have the profile with LTO, drover has not.
        builds = [call for call in calls if " build " in call]
        for crate, profile in (("ingest", "deploy"), ("agent", "deploy"), ("cli", "release")):
            ours = [call for call in builds if f"--package {crate}" in call and "apple" not in call]
            self.assertEqual(len(ours), 2)
            for call in ours:
                self.assertIn(f"cargo lambda build --profile {profile} ", call)

    def test_an_archive_is_reproducible_and_has_the_licences(self):
        archives = []
        for folder in ("one", "two"):
            done, to, _ = self.make("macos", folder=folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            archives.append((to / "drover-aarch64-apple-darwin.tar.gz").read_bytes())
        self.assertEqual(*archives)
        with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
            modes = {it.name: it.mode for it in archive.getmembers()}
        self.assertEqual(modes, {"drover": 0o755, "LICENSE-APACHE": 0o644, "LICENSE-MIT": 0o644})

    def test_a_release_with_a_missing_file_or_a_wrong_tag_is_refused(self):
        done, *_ = self.make("linux", "finish")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apple-darwin.tar.gz is missing", done.stderr)
        done, folder, _ = self.make("linux", "macos", "finish", RELEASE="v99.0.0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not that of version", done.stderr)
        self.assertFalse((folder / "SHA256SUMS").exists())

    def test_template_and_module_of_a_release_are_complete(self):
        done, folder, _ = self.make("linux", "macos", "finish")
        self.assertEqual(done.returncode, 0, done.stderr)
        template = yaml.load((folder / "template.yaml").read_text(encoding="utf-8"), project.Loader)
        code = {it["Properties"]["CodeUri"] for it in template["Resources"].values() if "CodeUri" in it["Properties"]}
        self.assertEqual(code, {f"{it}-arm64.zip" for it in project.FUNCTIONS})
        with tarfile.open(folder / "terraform.tar.gz") as module:
            self.assertLessEqual({"iam.tf", "variables.tf", "outputs.tf"}, set(module.getnames()))

    def test_the_workflow_makes_and_attests_every_part(self):
        workflow = yaml.safe_load(project.text(".github/workflows/release.yml"))
        platforms = [it["platform"] for it in workflow["jobs"]["build"]["strategy"]["matrix"]["include"]]
        self.assertEqual(platforms, ["linux", "macos"])
        steps = workflow["jobs"]["release"]["steps"]
        self.assertEqual(steps[2]["run"], "infra/release finish release")
        self.assertEqual(steps[3]["with"], {"subject-checksums": "release/SHA256SUMS"})


class ReleaseFiles(Checkout, unittest.TestCase):
    """Downloads of `make deploy RELEASE=...` and `make build-image RELEASE=...`."""

    def download(self, *files, tools=None, **environment):
        return self.run_in_checkout(tools or self.tools(), "infra/release-files", *files, **environment)

    def refused(self, message, done):
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn(message, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_files_are_verified_and_kept(self):
        folder, url = self.serve()
        for _ in range(2):
            done = self.download("ingest-arm64.zip", "agent-x86_64", RELEASE_URL=url)
            self.assertEqual(done.returncode, 0, done.stderr)
            kept = pathlib.Path(done.stdout.strip())
            self.assertEqual((kept / "agent-x86_64").read_bytes(), (folder / "agent-x86_64").read_bytes())
            self.assertIn("but not who built it", done.stderr)
        # A kept file that was changed is downloaded again.
        (kept / "agent-x86_64").write_text("changed", encoding="utf-8")
        self.assertEqual(self.download("agent-x86_64", RELEASE_URL=url).returncode, 0)
        self.assertEqual((kept / "agent-x86_64").read_bytes(), (folder / "agent-x86_64").read_bytes())

    def test_a_file_without_its_checksum_is_refused(self):
        folder, url = self.serve()
        (folder / "agent-x86_64").write_text("changed", encoding="utf-8")
        self.refused("does not have the checksum", self.download("agent-x86_64", RELEASE_URL=url))
        self.assertFalse((self.target.parent / f"release-{RELEASE}/agent-x86_64").exists())
        self.refused("has no file agent-riscv", self.download("agent-riscv", RELEASE_URL=url))
        (folder / "SHA256SUMS").unlink()
        self.refused("cannot download SHA256SUMS", self.download("agent-arm64", RELEASE_URL=url))

    def test_only_a_release_of_the_checkouts_version_is_used(self):
        _, url = self.serve()
        self.refused("git checkout v99.0.0", self.download("agent-arm64", RELEASE_URL=url, RELEASE="v99.0.0"))
        for release in ("", "main", "v1", "v1.0.0/../x"):
            self.refused("must be a tag", self.download("agent-arm64", RELEASE_URL=url, RELEASE=release))

    def test_the_repository_is_that_of_the_checkout(self):
        log = 'case "$*" in *--output*) exit 22;; esac'
        self.refused("set DROVER_REPOSITORY", self.download("agent-arm64"))
        for origin, expected in (
            ("git@github.com:octo-org/drover.git", "octo-org/drover"),
            ("https://github.com/octo-org/drover", "octo-org/drover"),
        ):
            self.git("config", "remote.origin.url", origin)
            tools = self.tools(curl=log)
            self.refused("cannot download", self.download("agent-arm64", tools=tools))
            (call,) = [it for it in tools.calls() if it.startswith("curl")]
            self.assertIn("--proto =https", call)
            self.assertTrue(
                call.endswith(f"https://github.com/{expected}/releases/download/{RELEASE}/SHA256SUMS"), call
            )
        self.git("config", "remote.origin.url", "https://git.example.com/octo-org/drover")
        self.refused("set DROVER_REPOSITORY", self.download("agent-arm64"))

    def test_an_attestation_is_verified_if_gh_is_logged_in(self):
        folder, _ = self.serve()
        for verified in (True, False):
            gh = f"""case "$1 $2" in
                "release download")
                    while [ "$1" != --pattern ]; do shift; done; file="$2"
                    while [ "$1" != --dir ]; do shift; done; cp "{folder}/$file" "$2";;
                "attestation verify") exit {0 if verified else 1};;
            esac"""
            tools = self.tools(gh=gh)
            done = self.download("agent-arm64", tools=tools, DROVER_REPOSITORY="octo-org/drover")
            if verified:
                self.assertEqual((done.returncode, done.stderr), (0, ""))
            else:
                self.refused("was not built by octo-org/drover's release workflow", done)
            (call,) = [it for it in tools.calls() if "attestation" in it]
            self.assertIn(f"--source-ref refs/tags/{RELEASE}", call)
            self.assertIn("--signer-workflow octo-org/drover/.github/workflows/release.yml", call)

    def test_the_image_gets_the_agent_of_the_release(self):
        folder, url = self.serve()
        terraform = 'case "$*" in *output*) echo "{}";; esac'
        packer = """if [ "$1" = version ]; then echo Packer v1.11.2; exit; fi
        for it; do case "$it" in -var-file=*) cp "${it#*=}" variables.json;; esac; done
        echo '{"builds": [{"artifact_id": "eu-central-1:ami-1"}]}' >manifest.json"""
        tools = self.tools(terraform=terraform, packer=packer, aws="echo '{\"Images\": []}'")
        for name in ("packer-plugin", "runner-version"):
            (self.checkout / "infra" / name).write_text("#!/bin/sh\n", encoding="utf-8")
        done = self.run_in_checkout(tools, "infra/build-image", ARCH="arm64", RELEASE_URL=url)
        self.assertEqual(done.returncode, 0, done.stderr)
        agent = re.search(r'"agent": "(.*)"', (self.checkout / "variables.json").read_text(encoding="utf-8"))[1]
        self.assertEqual(pathlib.Path(agent).read_bytes(), (folder / "agent-arm64").read_bytes())
        self.assertFalse([call for call in tools.calls() if call.startswith("cargo")])


class Install(Checkout, unittest.TestCase):
    """The installer of `drover`."""

    def install(self, script="infra/install.sh", tools=None, **environment):
        to = self.folder / "bin"
        shutil.rmtree(to, ignore_errors=True)
        done = self.run_in_checkout(tools or self.tools(), "sh", str(script), DROVER_INSTALL_DIR=str(to), **environment)
        return done, to / "drover"

    def test_drover_is_installed_after_its_checksum_is_verified(self):
        folder, url = self.serve()
        done, installed = self.install(RELEASE_URL=url)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(installed.read_text(encoding="utf-8"), DROVER)
        self.assertIn("drover 9.9.9", done.stdout)
        # The script of the release needs no settings.
        curl = f'while [ "$1" != --output ]; do shift; done; cp "{folder}/${{3##*/}}" "$2"'
        tools = self.tools(curl=curl)
        done, installed = self.install(folder / "install.sh", tools=tools, RELEASE="")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(installed.exists())
        self.assertIn(f"https://github.com/octo-org/drover/releases/download/{RELEASE}/SHA256SUMS", tools.calls()[0])

    def test_every_platform_has_an_archive(self):
        folder, url = self.serve()
        for system, name in (("Linux", "unknown-linux-gnu"), ("Darwin", "apple-darwin")):
            for machine, target in (("x86_64", "x86_64"), ("aarch64", "aarch64"), ("arm64", "aarch64")):
                tools = self.tools(uname=f'case "$1" in -m) echo {machine};; -s) echo {system};; esac')
                (folder / f"drover-{target}-{name}.tar.gz").write_bytes(b"changed")
                done, _ = self.install(tools=tools, RELEASE_URL=url)
                self.assertIn(f"drover-{target}-{name}.tar.gz does not have the checksum", done.stderr)
        tools = self.tools(uname='case "$1" in -m) echo riscv64;; *) echo Linux;; esac')
        done, _ = self.install(tools=tools, RELEASE_URL=url)
        self.assertIn("there is no drover for riscv64", done.stderr)

    def test_nothing_is_installed_unless_everything_is_verified(self):
        folder, url = self.serve()
        archive = folder / f"drover-{platform.machine()}-unknown-linux-gnu.tar.gz"
        packed, sums = archive.read_bytes(), (folder / "SHA256SUMS").read_text(encoding="utf-8")
        for change in ("archive", "no sum", "attestation"):
            with self.subTest(change):
                archive.write_bytes(b"changed" if change == "archive" else packed)
                lines = [it for it in sums.splitlines(True) if change != "no sum" or archive.name not in it]
                (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
                gh = 'case "$1" in auth) exit 0;; esac; exit 1' if change == "attestation" else "exit 1"
                done, installed = self.install(
                    tools=self.tools(gh=gh), RELEASE_URL=url, DROVER_REPOSITORY="octo-org/drover"
                )
                self.assertEqual(done.returncode, 1)
                self.assertIn("othing is installed", done.stderr)
                self.assertFalse(installed.exists())

    def test_cargo_binstall_finds_the_archives(self):
        metadata = re.search(r"(?ms)^\[package\.metadata\.binstall\]\n(.*?)\n\n", project.text("cli/Cargo.toml"))[1]
        settings = dict(re.findall(r'^(\S+) = "(.*)"$', metadata, re.M))
        for machine in MACHINES:
            for system in ("unknown-linux-gnu", "apple-darwin"):
                name = settings["pkg-url"].rsplit("/", 1)[1].replace("{ target }", f"{machine}-{system}")
                self.assertIn(name, FILES)
        self.assertEqual((settings["pkg-fmt"], settings["bin-dir"]), ("tgz", "{ bin }"))
        self.assertTrue(settings["pkg-url"].startswith("{ repo }/releases/download/v{ version }/"))
        # Cargo.toml names no repository, so the documented command names the same address in full.
        self.assertNotIn("repository", project.text("Cargo.toml"))
        documented = settings["pkg-url"].replace("{ repo }", "https://github.com/OWNER/drover")
        self.assertIn(f"--pkg-url '{documented}' cli", project.text("docs/commands.md"))


class Upload(unittest.TestCase):
    """What SAM makes of the template and the zip files."""

    def test_zip_files_are_uploaded_as_they_are_and_the_template_has_no_aliases(self):
        emulator = self.enterContext(Emulator())
        s3 = emulator.client("s3")
        s3.create_bucket(Bucket="zips", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-upload-")))
        zips = set()
        for function in project.FUNCTIONS:
            with zipfile.ZipFile(folder / f"{function}.zip", "w") as it:
                it.writestr("bootstrap", function)
            zips.add((folder / f"{function}.zip").read_bytes())
        template = re.sub(
            r"CodeUri: (ingest|scaler|janitor)/", rf"CodeUri: {folder}/\1.zip", project.text("template.yaml")
        )
        (folder / "template.yaml").write_text(template, encoding="utf-8")
        packaged = folder / "packaged.yaml"
        command = ("sam", "package", "--template-file", folder / "template.yaml", "--s3-bucket", "zips")
        done = subprocess.run(
            [*command, "--output-template-file", packaged],
            env={**emulator.environment, "SAM_CLI_TELEMETRY": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        keys = [it["Key"] for it in s3.list_objects_v2(Bucket="zips")["Contents"]]
        self.assertEqual({s3.get_object(Bucket="zips", Key=key)["Body"].read() for key in keys}, zips)
        # CloudFormation rejects aliases. SAM expands them.
        text = packaged.read_text(encoding="utf-8")
        self.assertFalse(re.search(r"(?m)^\s*(- |\w+: )?[&*]\w+$|<<:", text))
        self.assertEqual(text.count("xray:PutTraceSegments"), 3)


if __name__ == "__main__":
    unittest.main()
