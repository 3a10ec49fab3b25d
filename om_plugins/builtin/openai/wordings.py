"""What the words of a refusal mean, for services whose refusals have no code that says it.

The patterns are those of about thirty services and servers: each says in words of its own that a
question is too long for its model, that the model does not take images or a parameter, that its
content filter refused, or that the account has no credit. They are matched in lower case.
"""

from __future__ import annotations

import re

from ...errors import EngineError, InvalidRequest, Misconfigured, TooLong, Unsupported


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_TOKENS = r"\btokens?\b"
_QUESTION = (
    r"\b(prompt|inputs?|questions?|requests?|messages?|quer(y|ies)|texts?|conversation"
    r"|sequences?)\b"
)
_OVER = (
    r"(\b(exceed\w*|(longer|larger|greater|more|less|fewer) than|over the|above|at most|up to"
    r"|maximum|limit\w*|too (many|long|large))\b|[<>]=? ?[0-9])"
)

_CONTEXT = _any_of(
    r"context[ _-]?(length|window|size|limit)",
    r"\b(maximum|exceed\w*|longer than)\b.{0,60}\bcontext\b",
    r"\bcontext\b.{0,40}\b(exceed\w*|overflow\w*|too long|full)\b",
    r"request (entity |payload )?too large",
    r"\blong[ -]context\b.{0,40}\b(not (yet )?available|beta)|\brequired for long[ -]context\b",
)
_SHORTEN = re.compile(r"(reduce|shorten) (the |your )?(length|message|prompt|input|size)")
_TOO_LONG = _any_of(
    rf"{_TOKENS}.{{0,80}}{_OVER}",
    rf"{_OVER}.{{0,60}}{_TOKENS}",
    rf"{_QUESTION}.{{0,60}}\btoo (long|large|big)\b",
    rf"\btoo (long|large|big)\b.{{0,30}}{_QUESTION}",
    rf"{_QUESTION}.{{0,20}}\b(length|size)\b.{{0,60}}({_OVER}|\b(should|must) be\b|\brange\b)",
    rf"({_OVER}|\brange of\b|\bmax\b).{{0,30}}{_QUESTION}.{{0,10}}\blength\b",
    r"\blength\b.{0,40}\b(limit|maximum|max)\b",
    rf"{_QUESTION}.{{0,40}}\b(exceed\w*|longer than)\b",
    r"\bmax(imum)? (input|prompt) (characters?|chars?|letters?)\b",
    r"\bmax(imum)?[ _]?(prompt|input)[ _]?(length|tokens)",
    "超过.{0,20}长度|长度.{0,20}超|上下文.{0,20}超|超.{0,20}上下文",
)
_RATE = _any_of(
    r"\bper[ -](second|minute|min|hour|day)\b",
    r"\brate[ -]limit",
    r"\b(tpm|rpm|tpd)\b",
    r"\bconcurren",
    r"\bquota\b",
    r"\bwait\b.{0,20}\b(before|and|then)\b.{0,20}\b(try|retry)",
    "频率|速率|并发|限流",
)
_OUTPUT_LIMIT = _any_of(
    r"\bmax(imum)?_(completion_|output_|new_)?tokens\b.{0,60}(too (large|high|big)|> ?[0-9])",
    r"\bmax(imum)?_(completion_|output_|new_)?tokens\b.{0,60}\b(at most|less than|maximum|exceed)",
    r"\bcompletion tokens\b.{0,80}\byou provided\b",
)
_PARAMETER = _any_of(
    r"\b(unknown|unrecogni[sz]ed|unexpected|unsupported|illegal|undefined|invalid|additional|extra)"
    r" (request |keyword |input |body |query )?(parameter|argument|field|option|property|input|name"
    r"|keyword|attribute)s?\b",
    r"\b(parameter|argument|field|option|property)s?\b.{0,60}"
    r"(\bnot (yet |currently )?(support|allow|permit|recogni|available|accept)|unsupported)",
    r"\bextra_forbidden\b",
    r"\bextra (inputs?|fields?) (are |is )?not\b",
    r"\bno such parameter\b",
    # the words of validators: JSON schema, zod, .NET, AWS
    r"\badditional properties (are|is) not\b",
    r"\b(unrecogni[sz]ed|unexpected|extraneous) (keys?|params?|properties|entries)\b",
    r"\b(unknown|invalid|unsupported) (params?|properties)\b",
    r"\b(parameter|field|property)\b.{0,60}\bcould not be mapped\b",
)
_REFUSED_PARAMETER = _any_of(
    r"(\b(not|never|no longer|without)\b|n.t\b).{0,20}\b(support|allow|permit|accept|recogni)",
    r"\b(unsupported|deprecated|renamed|replaced|instead)\b",
    r"\buse (the )?['\"`]?max_",
)
_MODERATION = _any_of(
    r"\bcontent[ _](filter|polic|management|moderation|inspection|safety)",
    r"\bmoderat",
    r"(?<![a-z])(flagged|inappropriate|safety|sensitive|harmful|prohibited|unsafe|unethical)"
    r"(?![a-z])",
    "敏感|不安全|违规|审核|风险",
    r"\bviolat\w+\b.{0,60}\b(polic\w+|terms|guidelines?|usage)\b",
    r"\busage polic",
    r"\b(content risk|risk control)\b",
)
_ACCOUNT = _any_of(
    r"\b(api|access|secret|subscription)[ _-]?keys?\b",
    r"\b(credentials?|unauthori[sz]ed|authenticat\w+|authori[sz]ation)\b",
    r"\b(credits?|balance|billing|payment|arrears?|arrearage|overdue|quota|prepaid|subscription)\b",
    r"\binsufficient (account )?(balance|funds?|quota)\b",
    r"\b(spend(ing)?|usage) limit|\bbudget\b",
    r"\b(account|organi[sz]ation|project)\b.{0,40}\b(suspended|deactivated|disabled|blocked|banned"
    r"|inactive|not active|not in good standing|restricted|expired)\b",
    r"\bmodels?\b.{0,80}\b(not (be )?found|(does|do)(n.t| not) exist|not exist|no longer"
    r"|decommissioned|deprecated|retired|shut ?down)\b",
    r"\b(no such|unknown|invalid|not a valid) model\b",
    r"\bmodel (id|identifier|name)\b.{0,20}\binvalid\b",
    "欠费|余额|充值|账户|额度|密钥|鉴权|身份验证|模型.{0,20}不存在",
)
_CERTAIN_ACCOUNT = _any_of(
    r"\binsufficient (account )?(balance|funds?|credits?|quota)\b",
    r"\bcredit balance is too low\b",
    r"\b(invalid|incorrect|wrong) api[ _-]?key\b",
    "欠费|余额不足|账户余额",
)
_NO_SUPPORT = _any_of(
    r"(\b(not|never|only|no|without)\b|n.t\b).{0,40}\bsupport",
    "unsupported|不支持",
    r"\b(multi-?modal\w*|modalit(y|ies)|mmproj|jinja|image_url)\b",
    r"\broles? must alternate\b",
    r"\b(load|fetch|download|decod|open|process)\w*\b.{0,30}\b(images?|audio|videos?)\b",
)
_CANNOT = _any_of(
    _NO_SUPPORT.pattern,
    r"\bnot\b.{0,20}\b(permitted|allowed|available|enabled|implemented|compatible|capable)\b",
    r"\bcan(not|'t| not)\b.{0,30}\b(process|handle|accept|use|be used|read|understand|both)\b",
    r"\b(vision|images?|audio|videos?|pdfs?|prefill\w*|grammar|schema|tools?|tool_choice)\b",
    r"response_format|json_schema|json_object|json mode|structured output|function call",
    r"\broles?\b.{0,60}\b(must|support|only|allow)",
)
_MESSAGES = r"\b(messages?|prompt|content|question|inputs?)\b"
_WRONG_FOR_ALL = _any_of(
    r"\b(pars|decod|malformed|invalid|not valid|broken)\w*\b.{0,30}\bjson\b",
    r"\bjson\b.{0,20}\b(pars|decod|syntax)",
    rf"{_MESSAGES}.{{0,30}}\b(empty|blank|required|missing|non-?empty)\b",
    rf"\b(empty|missing)\b.{{0,30}}{_MESSAGES}",
    rf"\bno {_MESSAGES}.{{0,10}}\b(given|provided|found|supplied|specified)\b",
    r"\bat least (one|1)\b.{0,20}\bmessage",
)
_WRONG_TYPE = _any_of(
    r"\b(valid|expected|must be|should be|be of type|is not of type|got)\b.{0,12}\b(string|str"
    r"|number|integer|int|array|list|object|dict\w*|boolean|bool|float|decimal)\b",
    r"\binvalid type\b",
)
_OWN_TYPES = _any_of(
    # The engine has checked its own messages: a service that takes no lists in them, or in the
    # words to stop at, is alone. So is one with a range of its own.
    r"\b(messages?|content|role|stop)\b",
    r"\b(between|range|less|greater|above|below|at (most|least)|min|max|minimum|maximum)\b|[<>≤≥]",
)
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af]{3}"
)
"""Letters of languages whose words are not divided by spaces, or are few and long."""


def judge_text(text: str, status: int | None) -> type[EngineError] | None:
    """Return the class that the words of a refusal name.

    Args:
        text: in lower case.
        status: the status that the refusal has otherwise; ``None`` for none.

    Returns:
        ``None`` when the words say no more than the status.
    """
    if status not in (401, 402, 403, 407):
        # A 429 may be about one question of more tokens than a minute may have. But "reduce the
        # prompt, or try again later" is what any limit of tokens says.
        limited = status == 429 or (status is None and _RATE.search(text) is not None)
        if _CONTEXT.search(text) or (not limited and _SHORTEN.search(text)):
            return TooLong
    if status == 403:
        return Unsupported if _MODERATION.search(text) else None
    if status == 404:
        return Unsupported if _CANNOT.search(text) and not _ACCOUNT.search(text) else None
    if status not in (None, 400, 413, 422, 500, 501):
        return None
    if _OUTPUT_LIMIT.search(text):
        return Unsupported
    if not _RATE.search(text) and _TOO_LONG.search(text):
        return TooLong
    if names_unknown_parameter(text) or _MODERATION.search(text):
        return Unsupported
    if status in (None, 500, 501):
        # A failure may name anything. Only what blames the call for certain does not count as one.
        if _NO_SUPPORT.search(text):
            return Unsupported
        return Misconfigured if _CERTAIN_ACCOUNT.search(text) else None
    if _ACCOUNT.search(text):
        return Misconfigured
    if _CANNOT.search(text):
        return Unsupported
    return _judge_form(text) if status in (400, 422) else None


def _judge_form(text: str) -> type[EngineError] | None:
    if _WRONG_FOR_ALL.search(text):
        return InvalidRequest
    if _WRONG_TYPE.search(text) and not _OWN_TYPES.search(text):
        return InvalidRequest
    # What is left was refused for a reason of this service. A word or two only repeat the status.
    return Unsupported if len(text.split()) > 2 or _WITHOUT_SPACES.search(text) else None


def names_unknown_parameter(text: str) -> bool:
    """Return whether a refusal says that the service does not know a parameter at all."""
    return _PARAMETER.search(text) is not None


def names_refused_parameter(text: str) -> bool:
    """Return whether a refusal says that the service does not take a parameter, at this value or
    at any: it may also mean that the parameter has another name now."""
    return not _OUTPUT_LIMIT.search(text) and _REFUSED_PARAMETER.search(text) is not None
