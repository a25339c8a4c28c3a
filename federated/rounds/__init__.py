"""The rounds of a task as machines: who says what, what is agreed on, and when a phase is over.

Read them in this order: `messages` and `wire` (what members say), `gate` (what is let in), `events`
(what goes into the machine and comes out), `committee` and `roster` (who there is), `changes`, `witness`,
`pending` and `register` (how that changes), `collection` and `assembly` (the updates of a round), `ballots`
and `agreement` (the vote), `voting` and `phases`, `chain` and `archive` (what was certified before), and
`machine`, which puts all of it together. Who is no member yet: `admission`, `strangers`, `applicant`.
"""
