"""The commands of docs/install.md, in their order, as the check runs them."""

import dataclasses
import re


@dataclasses.dataclass
class Step:
    """A command of the guide, or the content of a file that the guide shows."""

    heading: str
    language: str
    text: str

    @property
    def name(self):
        return self.text.splitlines()[0] if self.language == "sh" else f"({self.language})"


def steps(document):
    """Yields the commands of the blocks marked `sh`, one by one, and each block marked `hcl` as a whole."""
    heading = ""
    for title, language, block in re.findall(r"(?ms)^## ([^\n]+)$|^```(sh|hcl)\n(.*?)^```$", document):
        if title:
            heading = title
        elif language == "hcl":
            yield Step(heading, language, block)
        else:
            for command in re.sub(r"\\\n\s*", "", block).splitlines():
                yield Step(heading, language, command)


class Replacements:
    """What replaces a command, or a part of one, that cannot run on the emulator. Each must be used."""

    def __init__(self, parts):
        self.parts, self.used = parts, set()

    def apply(self, command):
        for part, replacement in self.parts.items():
            if part in command:
                self.used.add(part)
                command = command.replace(part, replacement)
        if found := re.search(r"\bYOUR-[A-Z-]+", command):
            raise ValueError(f"the check does not know what to use for {found[0]}: {command}")
        return command

    def unused(self):
        return sorted(set(self.parts) - self.used)
