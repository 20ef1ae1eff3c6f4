"""infra/import-cycles on small workspaces in a temporary folder."""

import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "import-cycles"


def program():
    loader = importlib.machinery.SourceFileLoader("import_cycles", str(PROGRAM))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(loaded)
    return loaded


ALL_PROBLEMS = program().problems


def PROBLEMS(root):  # noqa: N802 - the small workspaces have no comments
    return [problem for problem in ALL_PROBLEMS(root) if not problem.startswith("documentation: ")]


def workspace(test, files, folder="agent", manifest=""):
    """A workspace with one crate, whose files are given by their path under src/."""
    root = pathlib.Path(test.enterContext(tempfile.TemporaryDirectory(prefix="drover-imports-"))).resolve()
    name = folder.rpartition("/")[2]
    written = {
        "Cargo.toml": f'[workspace]\nmembers = ["{folder}"]\n',
        f"{folder}/Cargo.toml": f'[package]\nname = "{name}"\n{manifest}',
        **{f"{folder}/src/{path}": text for path, text in files.items()},
    }
    for path, text in written.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


class Documentation(unittest.TestCase):
    def found(self, text):
        return list(ALL_PROBLEMS(workspace(self, {"lib.rs": text})))

    def test_a_file_begins_with_a_sentence_about_itself(self):
        self.assertEqual(
            self.found("pub struct A;"), ["documentation: agent/src/lib.rs does not begin with a //! comment"]
        )
        self.assertEqual(self.found("//! A file.\npub struct A;"), [])

    def test_a_public_trait_has_a_comment_and_attributes_may_follow_it(self):
        self.assertEqual(self.found("//! A file.\n/// A trait.\n#[async_trait]\npub trait A {}"), [])
        self.assertEqual(
            self.found("//! A file.\n#[async_trait]\npub trait A {}"),
            ["documentation: agent/src/lib.rs:3: the trait has no /// comment"],
        )


class Cycles(unittest.TestCase):
    def found(self, files, folder="agent"):
        return list(PROBLEMS(workspace(self, {"lib.rs": "mod a; mod b; mod c;", "c.rs": "", **files}, folder)))

    def is_cycle(self, a, b="use crate::a::A;\npub struct B;", **others):
        files = {"a.rs": a, "b.rs": b, **{name.replace("__", "/") + ".rs": text for name, text in others.items()}}
        found = self.found(files)
        self.assertTrue(found, a)
        return found

    def is_fine(self, a, b="use crate::a::A;\npub struct B;", **others):
        files = {"a.rs": a, "b.rs": b, **{name.replace("__", "/") + ".rs": text for name, text in others.items()}}
        self.assertEqual(self.found(files), [], a)

    def test_two_files_that_import_each_other_are_reported_with_lines_and_names(self):
        self.assertEqual(
            self.is_cycle("\nuse crate::b::B;\npub struct A;"),
            ["cycle: agent/src/a.rs:2 (B) -> agent/src/b.rs:1 (A) -> agent/src/a.rs"],
        )

    def test_every_way_to_write_an_import_counts(self):
        for a in (
            "use crate::b::B;",
            "use super::b::B;",
            "use crate::{c, b::{self, B}};",
            "use crate::b::B as Renamed;",
            "use crate::b::*;\nfn f(it: B) {}",
            "use crate::b;\nfn f() { b::f() }",
            "fn f() { crate::b::f() }",
            "fn f(it: &crate::b::B) {}",
            "fn f(it: Vec<super::b::B>) {}",
            "fn f() { use crate::b::B; }",
            "mod inner { use super::super::b::B; }",
            "mod inner { fn f() { crate::b::f() } }",
            "pub use crate::b::B;",
            '#[cfg(feature = "more")]\nuse crate::b::B;',
        ):
            with self.subTest(a):
                self.is_cycle(f"pub struct A;\n{a}", "use crate::a::A;\npub struct B;\npub fn f() {}")

    def test_comments_strings_and_tests_do_not_count(self):
        for a in (
            "// use crate::b::B;",
            "/* /* nested */ use crate::b::B; */",
            "/// See [`crate::b::B`].\nfn f() {}",
            'const TEXT: &str = "use crate::b::B; \\" crate::b::B";',
            'const TEXT: &str = r#"" crate::b::B"#;',
            "const QUOTE: char = '\"'; /* crate::b::B */ const OTHER: char = '\"';",
            "#[cfg(test)]\nmod tests { use crate::b::B; }",
            "#[cfg(test)]\nuse crate::b::B;",
            "#[cfg(test)]\n#[allow(unused)]\nfn f(it: crate::b::B) { crate::b::f() }",
            "fn f<'a>(it: &'a str) -> &'a str { it }",
        ):
            with self.subTest(a):
                self.is_fine(f"pub struct A;\n{a}")

    def test_a_longer_cycle_is_reported_once(self):
        found = self.is_cycle(
            "use crate::b::B;\npub struct A;", "use crate::c::C;\npub struct B;", c="use crate::a::A;\npub struct C;"
        )
        self.assertEqual(len(found), 1)
        self.assertEqual(
            [step.split(":")[0] for step in found[0].removeprefix("cycle: ").split(" -> ")],
            ["agent/src/a.rs", "agent/src/b.rs", "agent/src/c.rs", "agent/src/a.rs"],
        )

    def test_imports_in_one_direction_are_fine(self):
        self.is_fine("pub struct A;", "use crate::a::A;\nuse crate::c::C;", c="use crate::a::A;\npub struct C;")

    def test_a_parent_may_declare_and_re_export_what_its_children_import(self):
        self.is_fine(
            "mod one;\nmod two;\npub use one::One;\npub use self::two::Two;",
            "",
            a__one="pub struct One;",
            a__two="use super::One;\nuse crate::a::One as Same;\npub struct Two;",
        )

    def test_siblings_that_import_each_other_through_their_parent_are_a_cycle(self):
        for import_of_two in ("use super::Two;", "use crate::a::Two;", "use super::*;\nfn f(it: Two) {}"):
            with self.subTest(import_of_two):
                found = self.is_cycle(
                    "mod one;\nmod two;\npub use one::One;\npub use two::*;",
                    "",
                    a__one=f"{import_of_two}\npub struct One;",
                    a__two="use super::One;\npub struct Two;",
                )
                self.assertIn("agent/src/a/one.rs", found[0])
                self.assertNotIn("agent/src/a.rs", found[0])

    def test_a_child_that_imports_what_its_parent_defines_must_not_be_used_by_the_parent(self):
        child = "use super::Parent;\npub struct Child;\npub fn f() {}"
        for parent in (
            "fn g() { child::f() }",
            "use child::Child;",
            "pub use child::Child;\nfn g(it: Child) {}",
            "pub use child::*;\nfn g(it: Child) {}",
            "pub use child::f;\nfn g() { f() }",
        ):
            with self.subTest(parent):
                self.is_cycle(f"mod child;\npub struct Parent;\n{parent}", "", a__child=child)
        for parent in ("", "pub use child::Child;", "pub use child::*;", "pub use child::f;\nfn g(x: X) { x.f() }"):
            with self.subTest(parent):
                self.is_fine(f"mod child;\npub struct Parent;\n{parent}", "", a__child=child)

    def test_names_that_a_macro_defines_belong_to_the_file_that_calls_it(self):
        ids = "macro_rules! id { ($name:ident) => { pub struct $name; } }\nid!(A);\nid! { Other }\n"
        self.is_cycle(ids + "use crate::b::B;")
        self.is_cycle(
            "mod one;\npub use one::*;\nuse crate::b::B;",
            "use crate::a::A;\npub struct B;",
            a__one=ids + "use crate::b::B;",
        )

    def test_names_of_other_crates_are_no_imports(self):
        self.is_fine("use serde::B;\npub use domain::b::B as C;\npub struct A;", "use crate::a::{A, C};\npub struct B;")

    def test_a_program_and_its_library_are_two_crates(self):
        self.is_fine("pub struct A;", main="mod d;\nuse agent::a::A;\nfn main() { d::f() }", d="pub fn f() {}")

    def test_the_program_prints_problems_and_fails(self):
        for b, status in (("use crate::a::A;\npub struct B;", 1), ("pub struct B;", 0)):
            files = {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B;\npub struct A;", "b.rs": b}
            files = {name: f"//! A file.\n{text}" for name, text in files.items()}
            done = subprocess.run(
                [sys.executable, PROGRAM, workspace(self, files)], capture_output=True, text=True, check=False
            )
            self.assertEqual((done.returncode, done.stdout.count("cycle:"), done.stderr), (status, status, ""))


class Layers(unittest.TestCase):
    def found(self, **files):
        layers = {"ids": "", "wire": "", "config": "", "state": "", "log": "", "policy": ""}
        layers.update(files)
        written = {f"{name}/mod.rs": f"{text}\npub struct Of{name.capitalize()};" for name, text in layers.items()}
        written["lib.rs"] = "".join(f"pub mod {name};" for name in layers)
        return list(PROBLEMS(workspace(self, written, "shared/domain")))

    def test_a_layer_may_import_the_earlier_ones(self):
        self.assertEqual(
            self.found(
                wire="use crate::ids::OfIds;",
                config="use crate::ids::OfIds;",
                state="use crate::ids::OfIds;use crate::wire::OfWire;use crate::config::OfConfig;",
                log="use crate::state::OfState;",
                policy="use crate::log::OfLog;use crate::state::OfState;",
            ),
            [],
        )

    def test_a_layer_must_not_import_a_later_one(self):
        for layer, imported in (
            ("ids", "wire"),
            ("wire", "config"),
            ("config", "wire"),
            ("config", "state"),
            ("state", "log"),
            ("log", "policy"),
        ):
            found = self.found(**{layer: f"use crate::{imported}::Of{imported.capitalize()};"})
            self.assertEqual(len(found), 1, found)
            self.assertIn(f"{layer} must not import {imported}", found[0])


class Crates(unittest.TestCase):
    def found(self, folder, dependencies):
        root = workspace(self, {"lib.rs": ""}, folder, f"[dependencies]\n{dependencies}\n")
        names = ["domain", "engine", "platform", "world", "sandbox"]
        own = folder.rpartition("/")[2]
        members = [folder]
        for name in names:
            if name != own:
                (root / "other" / name).mkdir(parents=True)
                text = f'[package]\nname = "{name}"\n'
                (root / "other" / name / "Cargo.toml").write_text(text, encoding="utf-8")
                members.append(f"other/{name}")
        (root / "Cargo.toml").write_text(f"[workspace]\nmembers = {members}\n".replace("'", '"'), encoding="utf-8")
        return [it for it in PROBLEMS(root) if "other/" not in it]

    def test_allowed_dependencies_are_fine(self):
        for folder, dependencies in (
            ("shared/domain", "serde = '1'\njiff = '1'"),
            ("shared/engine", "domain.workspace = true\nfutures = '1'"),
            ("ingest", "platform.workspace = true\n[dev-dependencies]\nsandbox.workspace = true"),
            ("agent", "platform = { workspace = true, features = ['boot'] }"),
            ("scaler", "platform = { workspace = true, features = ['control'] }"),
        ):
            with self.subTest(folder):
                self.assertEqual(self.found(folder, dependencies), [])

    def test_every_other_dependency_is_reported(self):
        for folder, dependencies, problem in (
            ("shared/domain", "engine.workspace = true", "shared/domain must not use engine"),
            ("shared/domain", "tokio = '1'", "shared/domain must not depend on tokio"),
            ("shared/domain", "rand = '1'", "shared/domain must not depend on rand"),
            ("shared/engine", "platform.workspace = true", "shared/engine must not use platform"),
            ("shared/engine", "aws-sdk-ec2 = '1'", "shared/engine must not depend on aws-sdk-ec2"),
            ("testing/world", "domain.workspace = true", "testing/world must not use domain"),
            ("scaler", "sandbox.workspace = true", "scaler must not use sandbox"),
            (
                "ingest",
                "platform = { workspace = true, features = ['control'] }",
                "ingest must not use platform's feature `control`",
            ),
            ("new", "", "new is not in the list of crates in infra/import-cycles and ARCHITECTURE.md"),
        ):
            with self.subTest(problem):
                self.assertEqual(self.found(folder, dependencies), [f"crates: {problem}"])


if __name__ == "__main__":
    unittest.main()
