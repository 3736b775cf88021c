"""Everything that is measured, one after the other."""

from benchmarks import throughput

if __name__ == "__main__":
    throughput.main()
