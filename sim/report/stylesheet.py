"""How the page of a run looks: light or dark as the reader has it, on small screens and wide ones."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --faint: #5c6670; --page: #fff; --card: #f5f7f9;
  --line: #d8dee4; --good: #00694d; --bad: #b02a00; --link: #005a9c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --faint: #9aa5b1; --page: #14181d; --card: #1d232a;
    --line: #343d47; --good: #4cc79f; --bad: #ff8a5c; --link: #6cb8f0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 80rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .8rem; }
p { margin: .4rem 0; }
a { color: var(--link); }
.verdict {
  display: inline-block; padding: .1rem .7rem; border: 2px solid; border-radius: 1rem; font-weight: 600;
}
.good { color: var(--good); }
.bad { color: var(--bad); }
.word { font-weight: 600; white-space: nowrap; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 0;
}
.facts div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.facts dt { color: var(--faint); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td {
  text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
}
th { font-weight: 600; color: var(--faint); font-size: .85rem; }
.n { font-variant-numeric: tabular-nums; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); column-gap: 2.5rem;
  margin: 0;
}
.figures div {
  display: flex; justify-content: space-between; gap: 1rem; padding: .3rem 0;
  border-bottom: 1px solid var(--line);
}
.figures dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; font-weight: 600; }
.plots {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr)); gap: 1.2rem;
  align-items: start;
}
figure { margin: 0; background: var(--card); border-radius: .5rem; padding: .8rem; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--faint); font-size: .9rem; }
pre {
  background: var(--card); border-radius: .5rem; padding: .8rem; overflow-x: auto; margin: .4rem 0;
  font-size: .9rem;
}
code { font-family: ui-monospace, Menlo, Consolas, monospace; }
summary { cursor: pointer; }
.note {
  background: var(--card); border-left: 4px solid var(--link); border-radius: .3rem; padding: .6rem .9rem;
}
"""
