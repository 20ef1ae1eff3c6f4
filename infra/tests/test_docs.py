"""Checks what the documents refer to: links, files, functions, tests, invariants and commands."""

import functools
import re
import subprocess
import sys
import tomllib
import unittest

import project
import test_import_cycles

# All documents of the project.
DOCUMENTS = sorted(
    path.relative_to(project.ROOT).as_posix()
    for pattern in ("*.md", "*/*.md", "*/*/*.md", ".github/*.md")
    for path in project.ROOT.glob(pattern)
    if not {"target", "node_modules"} & set(path.parts)
)
# A name of five words or more is that of a test, unless the document describes another project's settings.
A_TEST = r"`([a-z0-9]+(?:_[a-z0-9]+){4,})`"
OTHER_PROJECTS = {"docs/migrate.md", "docs/compare.md"}
WRITTEN_BY_USERS = {"terraform/state-bucket", "terraform/terraform.tfvars"}


@functools.cache
def source(path):
    return project.text(path)


@functools.cache
def all_sources():
    return "".join(
        path.read_text(encoding="utf-8")
        for pattern in ("**/*.rs", "infra/tests/*.py")
        for path in sorted(project.ROOT.glob(pattern))
        if "target" not in path.parts
    )


def prose(document):
    """A document without code blocks and comments."""
    return re.sub(r"```.*?```|<!--.*?-->", "", source(document), flags=re.S)


def has_function(name, text):
    return re.search(rf"\b(fn|def) {name}\b", text)


def anchors(document):
    """The anchors that GitHub makes for the headings of a document."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(next(it for it in (anchor, *(f"{anchor}-{n}" for n in range(1, 99))) if it not in found))
    return found


def references(cell):
    """Yields (path, names) for a cell such as "`path`: `name`, `name`; `path`: `name`"."""
    for reference in cell.split(";"):
        named = re.findall(r"`([^`]+)`", reference)
        yield named[0] if named else "", named[1:]


class Links(unittest.TestCase):
    def test_every_link_leads_to_a_file_and_a_heading(self):
        for document in DOCUMENTS:
            links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
            links += re.findall(r'(?:src|srcset)="([^"]+)"', prose(document))
            for link in links:
                if re.match(r"[a-z]+:", link):
                    continue
                with self.subTest(document, link=link):
                    path, _, anchor = link.partition("#")
                    target = (project.ROOT / document).parent.joinpath(path) if path else project.ROOT / document
                    self.assertTrue(target.exists(), "no such file")
                    if anchor:
                        self.assertIn(anchor, anchors(target.resolve().relative_to(project.ROOT).as_posix()))

    def test_links_in_code_and_templates_lead_to_a_file_and_a_heading(self):
        for path in (
            *project.ROOT.glob("**/*.rs"),
            *project.ROOT.glob("*.yaml"),
            *project.ROOT.glob(".github/**/*.yml"),
        ):
            if "target" in path.parts:
                continue
            for document, anchor in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8")):
                with self.subTest(path.name, document=document, anchor=anchor):
                    self.assertTrue((project.ROOT / document).exists(), "no such file")
                    if anchor:
                        self.assertIn(anchor, anchors(document))

    def test_the_index_has_every_page(self):
        index = source("docs/README.md")
        for path in sorted((project.ROOT / "docs").glob("*.md")):
            if path.name != "README.md":
                self.assertIn(f"]({path.name})", index)

    def test_the_index_of_decisions_has_every_decision_with_its_status(self):
        index = source("docs/adr/README.md")
        for path in sorted((project.ROOT / "docs/adr").glob("[0-9]*.md")):
            with self.subTest(path.name):
                text = path.read_text(encoding="utf-8")
                number, status = path.name[:4], re.search(r"## Status\n\n(\w+)", text)[1].lower()
                self.assertRegex(text, rf"\A# {number}: ")
                self.assertRegex(index, rf"\| \[{number}\]\({re.escape(path.name)}\) \| [^|]+ \| {status}")
                headings = re.findall(r"^## (.+)$", text, re.M)
                self.assertEqual(headings, ["Status", "Context", "Decision", "Consequences"])

    def test_the_diagrams_are_as_their_sources_draw_them(self):
        for name in ["architecture", "pickup"]:
            drawn = subprocess.run(
                [sys.executable, project.ROOT / f"docs/images/{name}.py", "--print"],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            self.assertEqual(drawn, project.text(f"docs/images/{name}.svg"), "run: make diagrams")

    def test_make_targets_named_in_the_docs_exist(self):
        targets = set(re.findall(r"^([a-z-]+):", project.text("Makefile"), re.M))
        for document in DOCUMENTS:
            # Code blocks and inline code.
            for code in re.findall(r"```.*?```|`[^`]+`", source(document), re.S):
                for command in re.findall(r"(?:^|`|\()make (?:--silent )?([a-z-]+)", code, re.M):
                    self.assertIn(command, targets, document)


class Names(unittest.TestCase):
    def test_files_named_in_the_docs_exist(self):
        top = {path.name for path in project.ROOT.iterdir()} - {"target"}
        for document in set(DOCUMENTS) - OTHER_PROJECTS:
            for name in re.findall(r"`([\w.-]+/[\w./-]*)(?::\d+)?`", prose(document)):
                # Names of repositories and the like begin with a word that is no folder of this project.
                is_path = name.partition("/")[0] in top or re.search(r"/(src|tests)/", name)
                if is_path and name not in WRITTEN_BY_USERS:
                    with self.subTest(document, name=name):
                        self.assertTrue((project.ROOT / name).exists())

    def test_tests_named_in_the_docs_exist(self):
        for document in set(DOCUMENTS) - OTHER_PROJECTS:
            for name in re.findall(A_TEST, prose(document)):
                with self.subTest(document, name=name):
                    self.assertTrue(has_function(name, all_sources()))

    def test_the_tests_named_in_the_threat_model_exist(self):
        for threat, _, tests in project.rows("docs/security.md", "threat"):
            named = project.names_in(tests)
            self.assertTrue(named, f"no test is named for the threat: {threat}")
            for name in named:
                self.assertTrue(has_function(name, all_sources()), name)


class ExamplePools(unittest.TestCase):
    def test_only_the_organisation_has_to_be_replaced(self):
        text = source("pools.toml")
        code = [line.partition("#")[0] for line in text.splitlines()]
        self.assertEqual([line.strip() for line in code if "octo-org" in line], ['owner = "octo-org"'])
        for pool in tomllib.loads(text)["pool"]:
            # `drover pools apply` refuses a pool for some repositories in the default group, which admits all.
            self.assertFalse({"repositories", "runner_group"} & set(pool), pool["name"])


class Promises(unittest.TestCase):
    def rows(self):
        return project.rows("docs/promises.md", "id")

    def test_each_check_is_a_function_of_the_named_file(self):
        for id, _, _, checks, _ in self.rows():
            for path, names in references(checks):
                with self.subTest(id, path=path):
                    self.assertTrue((project.ROOT / path).is_file(), "no such file")
                    self.assertTrue(names, "no function is named")
                    for name in names:
                        self.assertTrue(has_function(name, source(path)), name)

    def test_each_mistake_exists_and_each_existing_mistake_is_named(self):
        named = {name for *_, mistake in self.rows() for name in re.findall(r"`([A-Z]\w+)`", mistake)}
        known = re.search(r"enum Mistake \{(.*?)\n\}", source("testing/simulator/src/mistakes/kinds.rs"), re.S)[1]
        self.assertEqual(named, set(re.findall(r"^    (\w+),", known, re.M)))

    def test_each_row_is_complete_and_has_its_own_id(self):
        ids = [row[0] for row in self.rows()]
        self.assertEqual(len(ids), len(set(ids)))
        for row in self.rows():
            self.assertEqual(len(row), 5, row[0])
            self.assertTrue(all(row), row[0])


class Architecture(unittest.TestCase):
    PAGE = "ARCHITECTURE.md"

    def test_the_invariants_are_those_of_the_promises(self):
        promised = {row[0] for row in project.rows("docs/promises.md", "id")}
        ours = [row[0] for row in project.rows(self.PAGE, "id")]
        self.assertEqual(set(ours), {it for it in promised if re.fullmatch(r"[SL]\d+", it)})

    def test_each_effect_names_a_test(self):
        for effect, *_, tests in project.rows(self.PAGE, "effect"):
            named = project.names_in(tests)
            self.assertTrue(named, effect)
            for name in named:
                self.assertTrue(has_function(name, all_sources()), name)

    def test_the_code_map_has_every_crate_and_what_it_may_use(self):
        may_use = test_import_cycles.program().MAY_USE
        written = {}
        for path, _, uses in project.rows(self.PAGE, "crate"):
            for folder in re.findall(r"`([\w/]+)`", path):
                written[folder] = tuple(sorted(re.findall(r"`(\w+)`", uses)))
        self.assertEqual(written, {folder: tuple(sorted(uses)) for folder, uses in may_use.items()})

    def test_the_code_map_has_every_file_of_domain_and_engine(self):
        for folder, heading in (("shared/domain/src", "file of domain"), ("shared/engine/src", "file of engine")):
            written = {row[0].strip("`") for row in project.rows(self.PAGE, heading)}
            files = {
                path.relative_to(project.ROOT / folder).as_posix()
                for path in (project.ROOT / folder).rglob("*.rs")
                if path.name not in ("lib.rs", "mod.rs")
            }
            self.assertLessEqual(files, written, heading)
            for name in written - files:
                self.assertTrue((project.ROOT / folder / name).is_file(), name)

    def test_each_behaviour_is_where_the_page_says(self):
        rows = project.rows(self.PAGE, "behaviour")
        self.assertGreaterEqual(len(rows), 25)
        for behaviour, places in rows:
            for path, names in references(places):
                with self.subTest(behaviour, path=path):
                    self.assertTrue((project.ROOT / path).is_file(), "no such file")
                    self.assertTrue(names, "no function is named")
                    for name in names:
                        self.assertTrue(has_function(name, source(path)), name)


if __name__ == "__main__":
    unittest.main()
