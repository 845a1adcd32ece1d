"""Run a store from door to receipt: the command `fusion run`.

python examples/run_store.py                          simulate a small shop for five minutes
python examples/run_store.py --store DIR              simulate the store of a store folder, such as
                                                      examples/stores/amazon_go
python examples/run_store.py RECORDING --out DIR      replay a recording, write the contract's results
python examples/run_store.py --store DIR --mqtt HOST  run a store on what its sensors publish, until interrupted
python examples/run_store.py --view out.rrd           write a Rerun recording of the run as well (extra `view`)
"""

import sys

from fusion.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
