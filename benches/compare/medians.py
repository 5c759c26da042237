"""Prints the medians of the rounds of files.sh: lines of tool, step, seconds (wall, user, system), RSS in kB, bytes added."""

import statistics
import sys

rounds = {}
for line in open(sys.argv[1]):
    tool, step, *figures = line.split()
    rounds.setdefault((tool, step), []).append([float(figure) for figure in figures])
print(f"{'tool':9} {'step':8} {'wall_s':>7} {'range':>13} {'user_s':>7} {'sys_s':>7} {'rss_MB':>7} {'added_MB':>9}")
for (tool, step), rows in rounds.items():
    wall, user, system, rss, added = map(statistics.median, zip(*rows))
    walls = [row[0] for row in rows]
    spread = f"{min(walls):.2f}-{max(walls):.2f}"
    print(f"{tool:9} {step:8} {wall:7.2f} {spread:>13} {user:7.2f} {system:7.2f} {rss / 1024:7.0f} {added / 1e6:9.2f}")
