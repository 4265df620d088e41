"""`python -m zoo`: the command line, where its script is not on the path."""

from zoo.cli.main import main

main()
