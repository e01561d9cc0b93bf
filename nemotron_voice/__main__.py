"""`python -m nemotron_voice`: the command line, for where scripts aren't on the path."""

from nemotron_voice.cli import app

if __name__ == "__main__":
    app(prog_name="nemotron-voice")
