"""The report's style sheet: one palette per colour scheme, print and dark mode, no script."""

LIGHT = {
    "ground": "#ffffff", "panel": "#f5f6f8", "ink": "#1b1f24", "soft": "#57606a",
    "rule": "#d0d7de", "s0": "#0b5cad", "s1": "#b34700", "s2": "#1a7f37", "s3": "#8a3ffc",
    "s4": "#a40e5b", "s5": "#5c6300", "warn": "#8a4b00", "error": "#b3141d", "info": "#0b5cad",
    "hatch": "#ffffff",
}  # fmt: skip
DARK = {
    "ground": "#12161b", "panel": "#1b2129", "ink": "#e6eaef", "soft": "#a3adb8",
    "rule": "#39424d", "s0": "#6cb2ff", "s1": "#ffa15c", "s2": "#5fd07f", "s3": "#c6a3ff",
    "s4": "#ff8fc4", "s5": "#d3d05a", "warn": "#ffb86b", "error": "#ff8a84", "info": "#6cb2ff",
    "hatch": "#12161b",
}  # fmt: skip

CHART = """
.chart text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
fill:var(--ink)}
.chart text.axis{font-size:12px;fill:var(--soft)}
.chart text.strong{font-weight:600}
.chart text.halo{paint-order:stroke;stroke:var(--ground);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--rule);stroke-width:1;fill:none}
.leader{stroke:var(--soft);stroke-width:1;fill:none}
.reference{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:3 3;fill:none}
.zero{stroke:var(--ink);stroke-width:1.5;fill:none}
.stem{stroke:var(--rule);stroke-width:1;fill:none}
.whisker{stroke:var(--ink);stroke-width:1.6;fill:none}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.band{fill-opacity:.22}
.hatch{stroke:var(--hatch);stroke-opacity:.7;stroke-width:1.6;fill:none}
.plate{fill:var(--ground)}
.mark{stroke:var(--ground);stroke-width:1}
.cross{stroke:var(--s3);stroke-width:2.8;fill:none}
.hollow{fill:var(--ground);stroke:var(--ink);stroke-width:1.8}
.part{stroke:var(--ground);stroke-width:1}
.cell{fill:var(--s0);stroke:var(--rule);stroke-width:1}
.owner{stroke:var(--ink);stroke-width:2.4}
""" + "".join(f".s{i}{{stroke:var(--s{i})}}.f{i}{{fill:var(--s{i})}}" for i in range(6))


def _variables(palette: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}\n"
    # Paper is white whatever the screen is.
    f"@media print{{:root{{color-scheme:light;{_variables(LIGHT)}}}}}"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1220px;padding:24px 20px 60px;background:var(--ground);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.1rem;margin:0;color:var(--soft);font-weight:500;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:36px 0 10px;border-bottom:1px solid var(--rule);padding-bottom:4px;
break-after:avoid}
h3{font-size:1rem;margin:20px 0 4px;break-after:avoid}
p,li,blockquote{max-width:80ch;overflow-wrap:anywhere}
.facts,.note,figcaption{color:var(--soft);font-size:.9rem}
.condition{border:1px solid var(--warn);border-left-width:5px;border-radius:4px;padding:8px 14px;
margin:12px 0;max-width:none}
.verdict{background:var(--panel);border-left:6px solid var(--info);border-radius:4px;
padding:14px 18px;margin:14px 0}
.verdict .sentence{font-size:1.3rem;line-height:1.4;font-weight:600;margin:4px 0 8px}
.verdict p{margin:4px 0}
.finding{background:var(--panel);border-left:5px solid var(--info);border-radius:4px;
padding:10px 16px;margin:12px 0;break-inside:avoid}
.warn{border-color:var(--warn)}.error{border-color:var(--error)}
.finding p{margin:4px 0}
.badge{font-weight:700;text-transform:uppercase;font-size:.78rem;letter-spacing:.05em;
color:var(--info)}
.warn>.head>.badge{color:var(--warn)}.error>.head>.badge{color:var(--error)}
pre{background:var(--ground);border:1px solid var(--rule);border-radius:4px;padding:8px 10px;
font:13px/1.45 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
overflow-wrap:anywhere;margin:6px 0}
.tabbed{white-space:pre;overflow:auto;tab-size:14;max-height:24rem;overflow-wrap:normal}
figure h3{margin:0 0 6px}figcaption{margin-top:6px}
table{border-collapse:collapse;font-size:.88rem;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 14px 3px 0;border-bottom:1px solid var(--rule);
vertical-align:top}
td,th{white-space:nowrap}td.long{white-space:normal;min-width:30ch;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}
.scroll{overflow-x:auto}details .scroll{max-height:24rem;overflow-y:auto}
.evidence{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(250px,100%),1fr));
gap:2px 22px;margin:6px 0;font-size:.88rem;font-variant-numeric:tabular-nums}
.evidence div{border-bottom:1px solid var(--rule);padding:2px 0;overflow-wrap:anywhere}
.evidence dt,.evidence dd{display:inline;margin:0}.evidence dt{color:var(--soft)}
details{margin:8px 0}summary{cursor:pointer;color:var(--info)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr));
gap:10px 34px;align-items:start}
figure{margin:10px 0;min-width:0;max-width:640px;break-inside:avoid}
.chart{width:100%;height:auto;display:block}
"""
    + CHART
    + """
@media (max-width:600px){body{padding:16px 14px 40px;font-size:14px}
.verdict .sentence{font-size:1.1rem}
.chart text{font-size:17px}.chart text.axis{font-size:15.5px}}
@media print{body{max-width:none;padding:0;font-size:10.5pt}
details .scroll,.tabbed{max-height:none;overflow:visible}
.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:6px 18px}
.chart text{font-size:17px}.chart text.axis{font-size:15.5px}
details:not([open]),.folded{display:none}
section{break-inside:auto}}
"""
)


def resolved(css: str, palette: dict[str, str]) -> str:
    """Give a style sheet with colours in the place of its variables."""
    for name, colour in palette.items():
        css = css.replace(f"var(--{name})", colour)
    return css
