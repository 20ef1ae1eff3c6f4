"""What the builds download is pinned: tools by their SHA-256, Packer's plugin by HashiCorp's signature."""

import hashlib
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile
import unittest
import zipfile

import project
import yaml
from test_scripts import Tools

PLATFORM = {"x86_64": "linux_amd64", "aarch64": "linux_arm64"}[platform.machine()]


class Requirements(unittest.TestCase):
    def test_every_package_has_a_version_and_a_hash(self):
        for purpose in ("build", "deploy", "check", "emulator"):
            text = project.text(f"infra/requirements/{purpose}.txt").replace("\\\n", " ")
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
            self.assertTrue(lines)
            for line in lines:
                self.assertRegex(line, r"^[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)

    def test_a_release_is_built_with_the_build_set_only(self):
        names = re.findall(r"^([\w-]+)==", project.text("infra/requirements/build.txt"), re.M)
        self.assertEqual(names, ["cargo-lambda", "ziglang"])
        self.assertIn("infra/setup build", project.text("infra/package"))
        for path in (".github/workflows/release.yml", "infra/release"):
            self.assertNotIn("infra/setup", project.text(path))
            self.assertNotIn("make check", project.text(path))

    def test_the_pinned_versions_are_those_of_the_input(self):
        for purpose in ("build", "deploy", "check", "emulator"):
            text = re.sub(r"\[\w+\]", "", project.text(f"infra/requirements/{purpose}.in"))
            wanted = set(re.findall(r"^([\w-]+==\S+)", text, re.M))
            locked = set(re.findall(r"^([\w-]+==\S+)", project.text(f"infra/requirements/{purpose}.txt"), re.M))
            self.assertEqual(wanted - locked, set())


class Toolchain(unittest.TestCase):
    def run_with(self, manifest):
        """Runs the check with a toolchain that has this manifest."""
        tools = Tools(self, rustc=f"echo {self.enterContext(tempfile.TemporaryDirectory())}")
        sysroot = pathlib.Path(tools.run("rustc").stdout.strip())
        if manifest:
            (sysroot / "lib/rustlib").mkdir(parents=True)
            (sysroot / "lib/rustlib/multirust-channel-manifest.toml").write_text(manifest, encoding="utf-8")
        return tools.run("infra/toolchain")

    def manifest(self):
        lines = []
        for line in project.text("infra/toolchain.sums").splitlines():
            sha, archive = line.split()
            name, target = re.fullmatch(r"(\w+(?:-std)?)-[\d.]+-(.*)\.tar\.xz", archive).groups()
            lines.append(f'[pkg.{name}.target.{target}]\nxz_url = "https://example.com/{archive}"\nxz_hash = "{sha}"')
        return "\n".join(lines)

    def test_the_sums_are_of_the_pinned_version(self):
        version = re.search(r'channel = "(.*)"', project.text("rust-toolchain.toml"))[1]
        for line in project.text("infra/toolchain.sums").splitlines():
            self.assertIn(f"-{version}-", line)

    def test_another_toolchain_is_refused(self):
        manifest = self.manifest()
        done = self.run_with(manifest)
        self.assertEqual(done.returncode, 0, done.stderr)
        first = re.search(r'xz_hash = "(\w+)"', manifest)[1]
        self.assertNotEqual(self.run_with(manifest.replace(first, "0" * 64)).returncode, 0)
        self.assertNotEqual(self.run_with(None).returncode, 0)

    def test_each_workflow_that_ships_executables_checks_it_first(self):
        for name, job, builds in (("release", "build", "infra/release"), ("image", "build", "make build-image")):
            steps = yaml.safe_load(project.text(f".github/workflows/{name}.yml"))["jobs"][job]["steps"]
            commands = [step.get("run", "") for step in steps]
            checks = next(at for at, it in enumerate(commands) if "infra/toolchain" in it)
            self.assertLess(checks, next(at for at, it in enumerate(commands) if builds in it))


class PackerPlugin(unittest.TestCase):
    """Installs a plugin that the test publishes, signed with a key that the test makes."""

    VERSION = re.search(r'version = "= ([\d.]+)"', project.text("packer/plugins.pkr.hcl"))[1]

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-plugin-")))
        self.name = f"packer-plugin-amazon_{self.VERSION}"
        self.archive = self.folder / f"{self.name}_{PLATFORM}.zip"
        with zipfile.ZipFile(self.archive, "w") as it:
            it.writestr("LICENSE.txt", "")
            it.writestr(f"packer-plugin-amazon_v{self.VERSION}_x5.0_{PLATFORM}", "the plugin")
        self.sums = self.folder / f"{self.name}_SHA256SUMS"
        sha = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        self.sums.write_text(f"{sha}  {self.archive.name}\n", encoding="utf-8")
        self.fingerprint = self.new_key("publisher")
        self.sign("publisher")

    def gpg(self, *arguments):
        home = self.folder / "gnupg"
        home.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(
            ["gpg", "--batch", "--homedir", home, *arguments], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def new_key(self, name):
        self.gpg("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
        listed = self.gpg("--with-colons", "--list-keys", name)
        (self.folder / "pgp-key.txt").write_text(self.gpg("--armor", "--export"), encoding="utf-8")
        return re.search(r"^fpr:+(\w+):", listed, re.M)[1]

    def sign(self, name):
        signature = self.sums.with_name(f"{self.sums.name}.sig")
        signature.unlink(missing_ok=True)
        self.gpg("--local-user", name, "--output", str(signature), "--detach-sign", str(self.sums))

    def install(self, fingerprint):
        checkout = self.folder / "checkout"
        shutil.rmtree(checkout, ignore_errors=True)
        (checkout / "packer").mkdir(parents=True)
        shutil.copy(project.ROOT / "packer/plugins.pkr.hcl", checkout / "packer")
        script = re.sub(r"fingerprint=\w+", f"fingerprint={fingerprint}", project.text("infra/packer-plugin"))
        (checkout / "infra").mkdir()
        shutil.copy(project.ROOT / "infra/cache", checkout / "infra")
        (checkout / "infra/packer-plugin").write_text(script, encoding="utf-8")
        # The arguments end with --output FILE ADDRESS.
        curl = f"""while [ "$1" != --output ]; do shift; done
        cp "{self.folder}/${{3##*/}}" "$2"
        """
        tools = Tools(self, curl=curl, packer='mkdir -p "$PACKER_PLUGIN_PATH"')
        done = tools.run(
            "bash", "infra/packer-plugin", checkout=checkout, CARGO_TARGET_DIR=str(self.folder / "cache/target")
        )
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return done, [call for call in tools.calls() if call.startswith("packer")]

    def test_a_signed_plugin_is_installed(self):
        done, calls = self.install(self.fingerprint)
        self.assertEqual(done.returncode, 0, done.stderr)
        (call,) = calls
        self.assertTrue(call.startswith("packer plugins install --path "), call)
        self.assertTrue(
            call.endswith(f"packer-plugin-amazon_v{self.VERSION}_x5.0_{PLATFORM} github.com/hashicorp/amazon")
        )

    def test_another_key_is_refused(self):
        self.new_key("somebody")
        self.sign("somebody")
        done, calls = self.install(self.fingerprint)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(calls, [])

    def test_another_archive_is_refused(self):
        with zipfile.ZipFile(self.archive, "a") as it:
            it.writestr("more", "")
        done, calls = self.install(self.fingerprint)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("has not the signed checksum", done.stderr)
        self.assertEqual(calls, [])

    def test_changed_checksums_are_refused(self):
        self.sums.write_text(self.sums.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        done, calls = self.install(self.fingerprint)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(calls, [])

    def test_the_fingerprint_is_hashicorps(self):
        # https://www.hashicorp.com/security
        self.assertIn("fingerprint=C874011F0AB405110D02105534365D9472D7468F", project.text("infra/packer-plugin"))
        self.assertIn("infra/packer-plugin", project.text("infra/build-image"))
        self.assertNotIn("packer init", project.text("infra/build-image"))


if __name__ == "__main__":
    unittest.main()
