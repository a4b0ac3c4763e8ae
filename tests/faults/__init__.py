"""No overlap under faults: contenders on one lock, on real servers, with one fault a round.

A round starts four contenders on one lock (`contenders`), each of which runs a command (`command`)
behind the lock again and again, once for each slot, or once for each key (`tools`). At a random moment
one fault (`table`) strikes a site (`sites`). When two more commands have run after that, the round is
over and its log is judged (`check`, `slots`).

    python -m tests.faults --site file --site etcd --fault 'kill *' --rounds 20 --seed 1 >> results.jsonl
    python -m tests.faults table results.jsonl

What is a matter of chance follows from the seed; which instant a signal hits does not, so a seed
names a kind of round rather than its exact course.
"""
