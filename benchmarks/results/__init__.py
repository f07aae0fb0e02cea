"""What docs/results.md is made of: which images there are, what was seen in them, and a section for each question.

`images` says what makes an image, `looks` has every task network look at every image once and keeps that, `figures`
makes scores with intervals of it, `study` knows what there is to compare, `networks` and `sections` write the sections,
and `page` puts them into the document. `benchmarks.bench_results` is the command.
"""
