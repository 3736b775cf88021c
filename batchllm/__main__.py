"""`python -m batchllm` is the command `batchllm`."""

from batchllm.cli.main import main

if __name__ == "__main__":
    main()
