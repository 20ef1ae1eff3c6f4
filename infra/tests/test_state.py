"""Moves a Terraform state to a bucket."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import project
from emulator import REGION, Emulator


class State(unittest.TestCase):
    """Moves a state from the local file to a bucket, with Terraform's own S3 backend."""

    MODULE = """
        variable "stack" {}
        variable "state_bucket" { default = null }
        resource "terraform_data" "this" { input = var.stack }
        output "sam_parameters" { value = { Stack = var.stack } }
    """

    def test_a_state_moves_to_the_bucket_and_is_used_from_there(self):
        emulator = self.enterContext(Emulator())
        emulator.client("s3").create_bucket(Bucket="states", CreateBucketConfiguration={"LocationConstraint": REGION})
        checkout = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-state-")))
        (checkout / "terraform").mkdir()
        (checkout / "terraform/main.tf").write_text(self.MODULE, encoding="utf-8")
        (checkout / "infra").mkdir()
        for script in ("infrastructure", "confirm"):
            shutil.copy(project.ROOT / "infra" / script, checkout / "infra")

        def run(*arguments, **environment):
            # The emulator's buckets have no host names of their own.
            path_style = {"TF_CLI_ARGS_init": "-backend-config=use_path_style=true"}
            if not (environment.get("STATE_BUCKET") or (checkout / "terraform/state-bucket").exists()):
                path_style = {}
            given = {**emulator.environment, "AUTO": "1", **path_style, **environment}
            given.pop("TF_DATA_DIR", None)
            done = subprocess.run(
                ["infra/infrastructure", *arguments],
                cwd=checkout,
                env=given,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout

        run("apply")
        before = json.loads((checkout / "terraform/terraform.tfstate").read_text(encoding="utf-8"))
        self.assertIn("No changes", run("apply", STATE_BUCKET="states"))
        stored = emulator.client("s3").get_object(Bucket="states", Key="drover/terraform.tfstate")["Body"].read()
        self.assertEqual(json.loads(stored)["resources"], before["resources"])
        # Another shell, without STATE_BUCKET.
        self.assertIn("No changes", run("plan"))
        self.assertEqual(json.loads(run("output", "sam_parameters")), {"Stack": "drover"})


if __name__ == "__main__":
    unittest.main()
