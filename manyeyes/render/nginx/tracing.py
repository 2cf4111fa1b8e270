"""Cluster -> where a request's trace comes from, for nginx's http context.

Stock nginx has no OpenTelemetry module, and needs none: a trace's id is the request's own random number or the client's, which
the engine gets as `traceparent` and the log tells; the controller makes the gateway's spans from that (manyeyes/controller/telemetry/otlp_exporter.py).
The form is W3C's: https://www.w3.org/TR/trace-context/
"""

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.rendered_file import with_gateway_header

# A number of zeros only is none.
TRACE, SPAN = r"(?!0{32})[0-9a-f]{32}", r"(?!0{16})[0-9a-f]{16}"


def tracing_conf(cluster: PlacedCluster) -> str:
    """Without tracing a client's own trace still reaches the engine and the log."""
    tracing = cluster.tracing
    new = "$request_id" if tracing.enabled else ""
    parts = [
        _from_client(
            "$manyeyes_trace",
            f'"~^00-(?<manyeyes_given_trace>{TRACE})-{SPAN}-[0-9a-f]{{2}}$" $manyeyes_given_trace',
            new,
        ),
        _from_client(
            "$manyeyes_parent", f'"~^00-{TRACE}-(?<manyeyes_given_span>{SPAN})-[0-9a-f]{{2}}$" $manyeyes_given_span', ""
        ),
    ]
    if not tracing.enabled:
        constants = "".join(f'map "" ${name} {{ default ""; }}\n' for name in ("manyeyes_span", "manyeyes_traced"))
        whole = _from_client("$manyeyes_traceparent", f'"~^00-{TRACE}-{SPAN}-[0-9a-f]{{2}}$" $http_traceparent', "")
        return with_gateway_header("".join([*parts, constants, whole]))
    parts += [
        _drawn(tracing.sampled_percent),
        _from_client(
            "$manyeyes_traced",
            f'"~^00-{TRACE}-{SPAN}-[0-9a-f][13579bdf]$" 1;\n    "~^00-{TRACE}-{SPAN}-[0-9a-f]{{2}}$" 0',
            "$manyeyes_drawn",
        ),
        "# The gateway's own span: digits of a random number that the trace's id does not begin with.\n"
        'map $request_id $manyeyes_span {\n    default "";\n    "~^.{8}(?<manyeyes_own_span>.{16})" $manyeyes_own_span;\n}\n',
        'map "" $manyeyes_traceparent { default "00-$manyeyes_trace-$manyeyes_span-0$manyeyes_traced"; }\n',
    ]
    return with_gateway_header("".join(parts))


def _from_client(variable: str, matches: str, otherwise: str) -> str:
    return f'map $http_traceparent {variable} {{\n    default "{otherwise}";\n    {matches};\n}}\n'


def _drawn(percent: float) -> str:
    # nginx knows hundredths of a percent, and refuses 0.00%.
    hundredths = round(100 * percent) if percent >= 0.01 else int(percent > 0)
    if hundredths in (0, 10_000):
        return f'map "" $manyeyes_drawn {{ default "{int(hundredths > 0)}"; }}\n'
    return f"split_clients $request_id $manyeyes_drawn {{\n    {hundredths / 100:.2f}% 1;\n    * 0;\n}}\n"
