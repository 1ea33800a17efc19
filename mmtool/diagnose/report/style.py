"""The report's style sheet: one palette per colour scheme, print and dark mode, no script."""

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--panel:#f5f6f8;--ink:#1b1f24;--soft:#57606a;
--rule:#d0d7de;--s0:#0b5cad;--s1:#b34700;--s2:#1a7f37;--s3:#8a3ffc;--s4:#a40e5b;--s5:#5c6300;
--warn:#8a4b00;--error:#b3141d;--info:#0b5cad;--hatch:rgba(255,255,255,.75)}
@media (prefers-color-scheme:dark){:root{--ground:#12161b;--panel:#1b2129;--ink:#e6eaef;
--soft:#a3adb8;--rule:#39424d;--s0:#6cb2ff;--s1:#ffa15c;--s2:#5fd07f;--s3:#c6a3ff;--s4:#ff8fc4;
--s5:#d3d05a;--warn:#ffb86b;--error:#ff8a84;--info:#6cb2ff;--hatch:rgba(0,0,0,.55)}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:900px;padding:24px 20px 60px;background:var(--ground);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.1rem;margin:0;color:var(--soft);font-weight:500;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:36px 0 10px;border-bottom:1px solid var(--rule);padding-bottom:4px}
h3{font-size:1rem;margin:20px 0 4px}
.verdict{font-size:1.3rem;line-height:1.4;font-weight:600;margin:10px 0 6px}
.facts,.note,figcaption{color:var(--soft);font-size:.9rem}
.finding{background:var(--panel);border-left:5px solid var(--info);border-radius:4px;
padding:12px 16px;margin:12px 0;break-inside:avoid}
.finding.warn{border-color:var(--warn)}.finding.error{border-color:var(--error)}
.finding p{margin:4px 0}
.badge{font-weight:700;text-transform:uppercase;font-size:.78rem;letter-spacing:.05em;
color:var(--info)}
.warn>.head>.badge{color:var(--warn)}.error>.head>.badge{color:var(--error)}
pre{background:var(--ground);border:1px solid var(--rule);border-radius:4px;padding:8px 10px;
overflow-x:auto;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;
overflow-wrap:anywhere;margin:6px 0}
table{border-collapse:collapse;font-size:.88rem;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid var(--rule);
vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}
.scroll{overflow-x:auto}
.evidence{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:2px 18px;
margin:6px 0;font-size:.88rem;font-variant-numeric:tabular-nums}
.evidence div{border-bottom:1px solid var(--rule);padding:2px 0;overflow-wrap:anywhere}
.evidence dt,.evidence dd{display:inline;margin:0}.evidence dt{color:var(--soft)}
details{margin:8px 0}summary{cursor:pointer;color:var(--info)}
figure{margin:14px 0;break-inside:avoid}
.chart{max-width:100%;height:auto;display:block}
.chart text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.chart text.axis{font-size:12px;fill:var(--soft)}
.grid{stroke:var(--rule);stroke-width:1;fill:none}
.leader{stroke:var(--soft);stroke-width:1;fill:none}
.reference{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:3 3;fill:none}
.stem{stroke:var(--rule);stroke-width:2;fill:none}
.whisker{stroke:var(--ink);stroke-width:1.6;fill:none}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.hatch{stroke:var(--hatch);stroke-width:1.6;fill:none}
.plate{fill:var(--ground)}.mark{stroke:var(--ground);stroke-width:1}
.cross{stroke:var(--s3);stroke-width:2.5;fill:none}
.part{stroke:var(--ground);stroke-width:1}
""" + "".join(f".s{i}{{stroke:var(--s{i})}}.f{i}{{fill:var(--s{i})}}" for i in range(6))
