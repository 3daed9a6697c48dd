"""The templates of pages.py. Colours follow the notebook's own, light or dark."""

STYLE = """
<style>
.pivotrl { --ink: currentColor; --muted: color-mix(in srgb, currentColor 62%, transparent);
  --line: color-mix(in srgb, currentColor 18%, transparent); --call: #3b7dd8; --text: #d08422;
  --before: #a9b3be; --after: #1d8a6b; --mark: #b3267b; font: 14px/1.45 system-ui, sans-serif;
  max-width: 60rem; }
.pivotrl h4 { margin: .9em 0 .3em; font-size: 1em; }
.pivotrl p { margin: .3em 0; }
.pivotrl .note { color: var(--muted); font-size: .92em; }
.pivotrl table { border-collapse: collapse; margin: .4em 0; }
.pivotrl th, .pivotrl td { padding: .2em .7em .2em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); background: none; }
.pivotrl td.n { text-align: right; font-variant-numeric: tabular-nums; }
.pivotrl pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2em 0; padding: .35em .6em;
  background: color-mix(in srgb, currentColor 6%, transparent); border-radius: 4px; font-size: .9em; }
.pivotrl .gold { border-left: 3px solid var(--call); }
.pivotrl .pass { border-left: 3px solid var(--after); } .pivotrl .fail { border-left: 3px solid #b3261e; }
.pivotrl .part { border-left: 3px solid var(--text); } .pivotrl .open { border-left: 3px solid var(--line); }
.pivotrl details { border-bottom: 1px solid var(--line); padding: .25em 0; }
.pivotrl summary { cursor: pointer; overflow-wrap: anywhere; }
.pivotrl .plots { display: flex; flex-wrap: wrap; gap: 1em; }
.pivotrl figure { margin: 0; flex: 1 1 17rem; max-width: 26rem; }
.pivotrl figcaption { font-weight: 600; font-size: .92em; }
.pivotrl svg { width: 100%; height: auto; }
</style>
"""

TURN = """
<details{% if open %} open{% endif %}><summary><b>{{ turn.mean }}</b> {{ turn.marks }} {{ turn.outcome }} ·
{{ turn.kind }} · <code>{{ turn.gist|shown }}</code></summary>
<p class="note"><code>{{ turn.id|shown }}</code> · turn {{ turn.number }}
· verifier {{ turn.verifier|shown }}</p>
<h4>End of the prompt</h4>
{% if turn.earlier %}<p class="note">{{ turn.earlier }} earlier messages left out</p>{% endif %}
{% for role, said in turn.messages %}
<p class="note">{{ role|shown }}</p><pre dir="auto">{{ said|shown }}</pre>
{% endfor %}
<h4>Demonstration</h4><pre dir="auto" class="gold">{{ turn.demonstration|shown }}</pre>
<h4>Samples</h4>
{% for s in turn.samples %}
<p class="note"><b>{{ s.reward }}</b>{% if s.times > 1 %} ×{{ s.times }}{% endif %} ·
<code>{{ s.reason|shown }}</code>{% if not s.finished %} · cut at the token limit{% endif %}
{% if s.details %} · {{ s.details|shown }}{% endif %}</p>
<pre dir="auto" class="{{ s.grade }}">{{ s.text|shown }}</pre>
{% else %}<p class="note">Nothing was sampled here.</p>{% endfor %}
</details>
"""

SELECTION = """
<table><tr><th>turns</th><th>candidates</th>
{% for name in names %}<th>{{ name }}</th>{% endfor %}<th>uninformative</th><th>mean reward</th></tr>
{% for row in rows %}<tr><th>{{ row.turns }}</th><td class="n">{{ row.total }}</td>
{% for count in row.counts %}<td class="n">{{ count }}</td>{% endfor %}
<td class="n">{{ row.uninformative }}</td><td class="n">{{ row.mean }}</td></tr>{% endfor %}</table>
<p class="note">{{ kept }} are trained on: mixed rewards, mean below λ_diff = {{ lambda_diff }}.
{{ survival }}</p>
<figure><figcaption>Profile means</figcaption>{{ histogram }}</figure>
"""

TEMPLATES = {
    "style": STYLE,
    "a_turn": TURN,
    "a_selection": SELECTION,
    "turn": "{% include 'style' %}<div class=\"pivotrl\">{% include 'a_turn' %}</div>",
    "turns": """{% include 'style' %}<div class="pivotrl">
{% set open = false %}{% for turn in turns %}{% include 'a_turn' %}{% else %}<p>No turns.</p>{% endfor %}
{% if count > turns|length %}<p class="note">{{ count - turns|length }} more are not shown.</p>{% endif %}
<p class="note">One mark per sample: ● full reward, ◐ part, ○ none.</p></div>""",
    "selection": "{% include 'style' %}<div class=\"pivotrl\">{% include 'a_selection' %}</div>",
    "run": """{% include 'style' %}<div class="pivotrl">
<p><b>{{ path|shown }}</b> <span class="note">{{ model|shown }}</span></p>
{% if measures %}<table><tr><th>measure</th><th>before</th><th>after</th><th>difference</th></tr>
{% for name, cells in measures %}<tr><th>{{ name|shown }}</th>
{% for cell in cells %}<td>{{ cell|shown }}</td>{% endfor %}</tr>{% endfor %}</table>{% endif %}
{% if selection %}{% with names=selection.names, rows=selection.rows, kept=selection.kept,
lambda_diff=selection.lambda_diff, survival=selection.survival, histogram=selection.histogram %}
{% include 'a_selection' %}{% endwith %}{% endif %}
{% if curves %}<p class="note">{{ steps }} train steps. Thick: a moving mean.</p><div class="plots">
{% for title, svg in curves %}<figure><figcaption>{{ title }}</figcaption>{{ svg }}</figure>{% endfor %}</div>
{% endif %}
{% if table %}<details><summary>The run's closing table</summary><table>
{% for name, said in table %}<tr><th>{{ name|shown }}</th><td>{{ said|shown }}</td></tr>{% endfor %}</table>
</details>{% endif %}</div>""",
    "evaluation": """{% include 'style' %}<div class="pivotrl">
<p><b>{{ evaluation.checkpoint|shown }}</b> <span class="note">policy {{ evaluation.policy|shown }}</span></p>
<table><tr><th>measure</th><th>value</th><th>95 % interval</th><th>n</th></tr>
{% for name, v in rows %}<tr><th>{{ name|shown }}</th><td class="n">{{ '%.3f'|format(v.value) }}</td>
<td>{% if v.why_no_interval %}{{ v.why_no_interval|shown }}{% else %}
[{{ '%.3f'|format(v.low) }}, {{ '%.3f'|format(v.high) }}]{% endif %}</td><td class="n">{{ v.n }}</td></tr>
{% endfor %}</table>
{% if evaluation.abstained %}
<p class="note">{{ evaluation.abstained }} samples were left undecided.</p>{% endif %}
</div>""",
    "trajectories": """{% include 'style' %}<div class="pivotrl">
<table><tr><th>source</th><th>trajectories</th><th>turns</th><th>with calls</th><th>calls in</th>
<th>verifier</th><th>rewards</th></tr>
{% for r in rows %}<tr><th>{{ r.source|shown }}</th><td class="n">{{ r.count }}</td>
<td class="n">{{ r.turns }}</td>
<td class="n">{{ r.calls }}</td><td>{{ r.dialects|shown }}</td><td>{{ r.verifiers|shown }}</td>
<td>{{ r.rewards|shown }}</td></tr>{% endfor %}</table>
{% for where, why in left_out %}<p class="note">left out {{ where|shown }}: {{ why|shown }}</p>{% endfor %}
{% if more %}<p class="note">{{ more }} more were left out.</p>{% endif %}</div>""",
}
