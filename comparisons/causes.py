from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    name: str
    text: str

    def __str__(self):
        return f"{self.name}: {self.text}"


def diagnose(failures, done):
    return None
