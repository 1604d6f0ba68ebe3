"""Forms of an agent_url that are never asked, whatever networks the operator listed."""

import pytest

from gateway.bridge.agent_url import AgentUrlError, parse

REFUSED = {
    "no scheme": ["agent-host:8001", "//agent-host:8001", "agent-host", ""],
    "another scheme": [
        *("file:///etc/passwd", "ftp://10.0.0.1/", "gopher://10.0.0.1:6379/_x", "ws://10.0.0.1/"),
        *("dict://10.0.0.1:11211/", "unix:///run/docker.sock", "jar:http://10.0.0.1!/", "HTTP:10"),
        *("javascript:alert(1)", "data:,x", "httpx://10.0.0.1/", "HTTPS://10.0.0.1/"),
    ],
    "decimal": ["http://2130706433/", "http://2852039166/", "http://167772161:8001"],
    "octal": ["http://0177.0.0.1/", "http://017700000001/", "http://010.0.0.1:8001"],
    "hexadecimal": ["http://0x7f000001/", "http://0x7f.0.0.1/", "http://10.0.0.0x1/", "http://0x/"],
    "short": ["http://127.1/", "http://10.1/", "http://10.0.1/", "http://0/", "http://1.2.3.4.5/"],
    "out of range": ["http://10.0.0.256/", "http://999.1.1.1/"],
    "user": [
        *("http://user@10.0.0.1/", "http://user:pass@10.0.0.1:8001", "http://10.0.0.1@evil/"),
        *("http://10.0.0.1:80@169.254.169.254/", "http://@10.0.0.1/", "http://a%40b@10.0.0.1/"),
    ],
    "dot at the end": ["http://agent-host./", "http://10.0.0.1./", "http://localhost.:8001"],
    "other characters": [
        *("http://ⓛocalhost/", "http://①②⑦.0.0.1/", "http://169。254。169。254/"),
        *("http://\uff11\uff10.0.0.1/", "http://bücher.example/", "http://agent\u200bhost/"),
    ],
    "internationalized": ["http://xn--bcher-kva.example/", "http://XN--a.example/"],
    "query or fragment": ["http://10.0.0.1/?x=/agent", "http://10.0.0.1#@evil/", "http://a/x?"],
    "white space and control": [
        *("http://10.0.0.1 /", " http://10.0.0.1", "http://10.0.0.1\n", "http://10.0.0.1\r\nX: y"),
        *("http://10.0.0.1\t:80/", "http://10.0.0.1/\x00", "http://10.0.0.1/a b"),
    ],
    "backslash": ["http:\\\\10.0.0.1\\", "http://10.0.0.1\\@evil/", "http://evil\\.10.0.0.1/"],
    "escapes": ["http://10.0.0.1/%2e%2e/", "http://%31%30.0.0.1/", "http://10.0.0.1%2f@evil/"],
    "path that climbs": ["http://10.0.0.1/../x", "http://10.0.0.1/a/./b", "http://10.0.0.1/a/.."],
    "path of two slashes": ["http://10.0.0.1//evil/", "http://10.0.0.1/a//b"],
    "port": [
        *("http://10.0.0.1:0/", "http://10.0.0.1:65536/", "http://10.0.0.1:99999", "http://a:/"),
        *(
            "http://10.0.0.1:80:81/",
            "http://10.0.0.1:-1/",
            "http://10.0.0.1:\uff180/",
            "http://a:0x50",
        ),
    ],
    "brackets": [
        *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[10.0.0.1]/", "http://[]/"),
        *("http://[::1", "http://::1/", "http://[::1]x/", "http://[1::2::3]/", "http://[v1.a]/"),
    ],
    "no name": ["http:///x", "http://-a/", "http://a-/", "http://.a/", "http://a..b/", "http://*/"],
    "too long": ["http://" + "a" * 64 + "/", "http://" + ".".join(["a" * 60] * 5) + "/"],
}


@pytest.mark.parametrize("text", [text for texts in REFUSED.values() for text in texts], ids=ascii)
def test_a_form_with_two_readings_is_refused_in_one_line(text):
    with pytest.raises(AgentUrlError) as raised:
        parse(text)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 120


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://agent-host:8001", "http://agent-host:8001/agent/health"),
        ("http://agent-host:8001/", "http://agent-host:8001/agent/health"),
        ("http://Agent_1.site-A.example", "http://agent_1.site-a.example:80/agent/health"),
        ("https://10.0.0.1", "https://10.0.0.1:443/agent/health"),
        ("http://10.0.0.1:8001/base/v1/", "http://10.0.0.1:8001/base/v1/agent/health"),
        ("http://[FD00:0:0::1]:8001", "http://[fd00::1]:8001/agent/health"),
    ],
)
def test_a_plain_address_is_asked_where_it_says(text, asked):
    assert parse(text).at("/agent/health") == asked
