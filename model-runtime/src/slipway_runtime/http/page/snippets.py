"""How to ask for a prediction from a shell and from three languages, to be copied as it is.

Each uses nothing but its language's standard library: Java 15, C# 5 (.NET Framework 4.5, .NET), Python 3.
"""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 64

_JAVA = '''import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

class Predict {
    public static void main(String[] arguments) throws Exception {
        var body = """
            %s""";
        var request = HttpRequest.newBuilder(URI.create("%s/predict"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
    }
}'''

_CSHARP = """using System;
using System.Net.Http;
using System.Text;
using System.Threading.Tasks;

class Predict
{
    static void Main()
    {
        Ask().GetAwaiter().GetResult();
    }

    static async Task Ask()
    {
        var body = @"%s";
        using (var client = new HttpClient())
        using (var content = new StringContent(body, Encoding.UTF8, "application/json"))
        using (var answer = await client.PostAsync("%s/predict", content))
        {
            Console.WriteLine(await answer.Content.ReadAsStringAsync());
        }
    }
}"""

_PYTHON = """import json
import urllib.request

row = %s
request = urllib.request.Request(
    "%s/predict",
    data=json.dumps({"rows": [row]}).encode(),
    headers={"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["predictions"][0])"""


def snippets(address: str, row: dict[str, Any]) -> list[tuple[str, str]]:
    """Give each language's name and program.

    Args:
        address: Of the runtime, without a path.
        row: A value for each column.
    """
    pairs = [f"{_json(name)}: {_json(value)}" for name, value in row.items()]
    body = ['{"rows": [{', *_filled(pairs), "}]}"]
    quoted = "\n    ".join(body).replace("'", "'\\''")
    literal = ["{", *_filled([f"{name!r}: {value!r}" for name, value in row.items()]), "}"]
    return [
        ("curl", f"curl {address}/predict \\\n  -H 'Content-Type: application/json' \\\n  -d '{quoted}'"),
        ("Python", _PYTHON % ("\n".join(literal), address)),
        ("Java", _JAVA % ("\n            ".join(body).replace("\\", "\\\\"), address)),
        ("C#", _CSHARP % ("\n            ".join(body).replace('"', '""'), address)),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _filled(pairs: list[str]) -> list[str]:
    """Put as many on a line as fit."""
    lines = [""]
    for place, pair in enumerate(pairs):
        text = pair if place == len(pairs) - 1 else f"{pair}, "
        if lines[-1] and len(lines[-1]) + len(text) > _WIDTH:
            lines.append("")
        lines[-1] += text
    return [f"    {line.rstrip()}" for line in lines]
