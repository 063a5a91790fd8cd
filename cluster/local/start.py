"""Several Ray nodes on this machine, and a prompt to kill them, cut their links and add others.

Run it from the clone: `.venv/bin/python cluster/local/start.py --nodes 3`.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable

from gridcompute.errors import GridError
from gridcompute.testing.cluster import LocalCluster
from gridcompute.testing.radosgw import Radosgw, missing


def listed(cluster: LocalCluster) -> None:
    """Print the nodes."""
    alive = cluster.alive() if cluster.links is None else {}
    for node in cluster.nodes:
        state = {True: "alive", False: "dead"}.get(alive.get(node.name), "")
        print(f"  {node.number} {node.address:12} {len(node.workers())} workers {state}")


def head_again(cluster: LocalCluster) -> None:
    """Kill the head and start it again."""
    cluster.kill_head()
    cluster.restart_head()


OF_ALL: dict[str, tuple[str, Callable[[LocalCluster], object]]] = {
    "nodes": ("the nodes, and which of them Ray takes for alive", listed),
    "add": ("start one more node", lambda cluster: print(f"  {cluster.add_node()}")),
    "head": ("kill the head and start it again (--redis)", head_again),
}
OF_ONE: dict[str, tuple[str, Callable[[LocalCluster, int], object]]] = {
    "kill": ("kill node N: its raylet and workers, at once", LocalCluster.kill_node),
    "raylet": ("kill only the raylet of node N", LocalCluster.kill_raylet),
    "worker": ("kill one worker of node N", LocalCluster.kill_worker),
    "cut": ("take the link of node N down (--links)", LocalCluster.cut),
    "mend": ("take it up again", LocalCluster.mend),
}
HELP = "\n".join([*(f"  {name:10} {text}" for name, (text, _) in OF_ALL.items()),
                  *(f"  {name + ' N':10} {text}" for name, (text, _) in OF_ONE.items()),
                  "  quit       end everything"])


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3, help="how many, the head included")
    parser.add_argument("--cores", type=int, default=1, help="of each node")
    parser.add_argument("--redis", action="store_true", help="keep what Ray's control store knows in Redis")
    parser.add_argument("--links", action="store_true", help="a network namespace for each node (root only)")
    parser.add_argument("--s3", action="store_true", help="start Ceph's S3, too")
    return parser.parse_args()


def told(cluster: LocalCluster, s3: Radosgw | None) -> None:
    """How to use it from another terminal."""
    before = " ".join(cluster.command([])) + " " if cluster.links is not None else ""
    print(f"\n{len(cluster.nodes)} nodes run. In another terminal:\n")
    print("  export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in cluster.environment.items()))
    store = ""
    if s3 is not None:
        import s3fs

        s3fs.S3FileSystem(**s3.options).mkdir("work")
        print(f"  export AWS_ENDPOINT_URL={s3.endpoint} AWS_ACCESS_KEY_ID={s3.key} AWS_SECRET_ACCESS_KEY={s3.secret}")
        store = " --store s3://work/demo"
    print(f"  {before}.venv/bin/python -m gridcompute run climate.trend --output trend.zarr"
          f" --address {cluster.address}{store}\n\n{HELP}\n")


def carried_out(cluster: LocalCluster, name: str, number: str = "0") -> None:
    """One line of the prompt."""
    if name in OF_ONE:
        OF_ONE[name][1](cluster, int(number))
    elif name in OF_ALL:
        OF_ALL[name][1](cluster)
    else:
        print(HELP)


def main() -> None:
    """Start, show how to use it, and obey until the end."""
    asked = parsed()
    if asked.s3 and (lacking := missing()):
        sys.exit(f"not installed: {', '.join(lacking)}; `make servers` installs Ceph")
    if asked.s3 and asked.links:
        sys.exit("--s3 and --links don't go together: the store listens on the machine's own loopback")
    with contextlib.ExitStack() as stack:
        try:
            s3 = stack.enter_context(Radosgw()) if asked.s3 else None
            print(f"starting {asked.nodes} nodes, one after the other ...", flush=True)
            cluster = stack.enter_context(LocalCluster(asked.nodes, asked.cores, redis=asked.redis, links=asked.links))
        except (OSError, TimeoutError, GridError) as error:
            sys.exit(f"it can't be started: {error}")
        told(cluster, s3)
        while True:
            try:
                words = input("> ").split()
            except (EOFError, KeyboardInterrupt):
                return
            if words == ["quit"]:
                return
            if words:
                try:
                    carried_out(cluster, *words[:2])
                except IndexError:
                    print("  there is none")
                except (ValueError, OSError) as error:
                    print(f"  {error}")


if __name__ == "__main__":
    main()
