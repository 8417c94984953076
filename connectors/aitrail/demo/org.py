"""The organisation: people, service identities, models, applications. All made up; constant for every seed."""

import hashlib
from functools import lru_cache
from typing import Literal

from msgspec import Struct

ACCOUNT = "111122223333"
ACCOUNT_OUTSIDE = "999988887777"
REGION = "eu-west-1"
AZURE_REGION = "westeurope"
AZURE_SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-111122223333"
AZURE_TENANT = "8f2c7a10-0000-4000-8000-111122223333"
STOLEN_KEY = "AKIAIOSFODNN7EXAMPLE"

Department = Literal["retail", "investment-banking", "engineering", "support"]
DEPARTMENTS: tuple[Department, ...] = ("retail", "investment-banking", "engineering", "support")

# Job titles by department, in order of seniority; people get them round robin.
_TITLES: dict[Department, tuple[str, ...]] = {
    "retail": ("Branch Manager", "Product Analyst", "Relationship Adviser", "Campaign Manager", "Credit Adviser"),
    "investment-banking": ("Managing Director", "Vice President", "Associate", "Analyst"),
    "engineering": ("Platform Engineer", "Data Scientist", "Backend Engineer", "Security Engineer", "ML Engineer"),
    "support": ("Team Lead", "Support Agent", "Complaints Specialist", "Support Agent"),
}

_NAMES: dict[Department, str] = {
    "retail": (
        "Ines Moreau,Tobias Lindqvist,Amara Okafor,Giulia Ferrante,Wei Zhang,Carlos Ibarra,Hannah Vogel,Priya Nair,"
        "Mateusz Kowalczyk,Sofia Andersson,Kwame Mensah,Elif Demir,Lucas Pereira,Noor Haddad,Annika Bauer,"
        "Daniel Okonkwo,Marta Nowak,Julien Lefevre"
    ),
    "investment-banking": (
        "Victoria Ashworth,Henrik Solberg,Rajesh Iyer,Camille Fontaine,Oliver Brandt,Yuki Tanabe,Alessandro Conti,"
        "Fatima El Idrissi,Benedict Hale,Charlotte Meyer,Dmitri Volkov,Grace Adeyemi,Lars Eriksen,Mei Lin Chua"
    ),
    "engineering": (
        "Adrian Popescu,Zanele Dlamini,Tomas Havel,Ravi Subramanian,Katarina Horvat,Ethan Walsh,Leila Farahani,"
        "Jonas Weber,Paulina Rybak,Samuel Osei,Ingrid Dahl,Minh Tran,Nadia Benali,Felix Gruber,Aoife Brennan,"
        "Stefan Ilic"
    ),
    "support": (
        "Bianca Rossi,Omar Siddiqui,Petra Novotna,George Papadakis,Chloe Martin,Emeka Nwosu,Laura Jimenez,"
        "Mikael Virtanen,Sara Lindholm,Thandiwe Khumalo,Viktor Petrov,Rosa Almeida"
    ),
}


class Person(Struct, frozen=True, gc=False):
    """One employee. ``object_id`` is the Entra object id, ``principal`` the AWS principal id of the SSO role."""

    user_id: str
    name: str
    email: str
    department: Department
    title: str
    office_ip: str
    home_ip: str
    object_id: str
    principal: str
    sso_role: str
    agent: str

    kind: Literal["human"] = "human"


class Service(Struct, frozen=True, gc=False):
    """One service identity: an AWS role with its session name, or an Entra application."""

    user_id: str
    name: str
    department: Department
    role: str
    object_id: str
    principal: str
    office_ip: str
    agent: str

    kind: Literal["service"] = "service"


Actor = Person | Service


@lru_cache(maxsize=16384)
def digest(text: str, digits: int) -> str:
    """A constant made of ``text``: ids of the organisation stay the same for every seed."""
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:digits]


@lru_cache(maxsize=4096)
def constant_uuid(text: str) -> str:
    """A UUID made of ``text``."""
    h = digest(text, 32)
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def principal_id(text: str) -> str:
    """An AWS role's unique id (AROA...), made of ``text``."""
    number = int(digest(text, 24), 16)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return "AROA" + "".join(letters[(number >> (5 * i)) & 31] for i in range(17))


_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
)
_DEVELOPER_AGENTS = (
    "OpenAI/Python 2.8.0",
    "aws-cli/2.31.4 md/awscrt#0.28.1 ua/2.1 os/linux#6.8.0 md/arch#x86_64 lang/python#3.13.7 cfg/retry-mode#standard",
    "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/macos#25.0.0 md/arch#arm64 lang/python#3.12.11 Botocore/1.40.61",
)
_SSO_ROLES: dict[Department, str] = {
    "retail": "RetailAnalyst",
    "investment-banking": "DealTeam",
    "engineering": "MLEngineer",
    "support": "SupportAgent",
}


def _people() -> tuple[Person, ...]:
    found: list[Person] = []
    for department in DEPARTMENTS:
        titles = _TITLES[department]
        for index, name in enumerate(_NAMES[department].split(",")):
            parts = name.lower().split()
            user_id = f"{parts[0]}.{''.join(parts[1:])}"
            number = len(found)
            agents = _DEVELOPER_AGENTS if department == "engineering" else _BROWSERS
            role = f"AWSReservedSSO_{_SSO_ROLES[department]}_{digest(_SSO_ROLES[department], 16)}"
            found.append(
                Person(
                    user_id=user_id,
                    name=name,
                    email=f"{user_id}@example.com",
                    department=department,
                    title=titles[index % len(titles)],
                    office_ip=f"203.0.113.{10 + number}",
                    home_ip=f"198.51.100.{10 + number}",
                    object_id=constant_uuid(user_id),
                    principal=principal_id(role),
                    sso_role=role,
                    agent=agents[index % len(agents)],
                )
            )
    return tuple(found)


def _service(user_id: str, name: str, department: Department, role: str, ip: str, agent: str) -> Service:
    return Service(
        user_id=user_id,
        name=name,
        department=department,
        role=role,
        object_id=constant_uuid(user_id),
        principal=principal_id(role),
        office_ip=ip,
        agent=agent,
    )


_BOTO = "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#6.12.40 md/arch#x86_64 lang/python#3.12.11 Botocore/1.40.61"
_JAVA = "aws-sdk-java/2.37.3 md/io#async md/http#NettyNio ua/2.1 os/Linux#6.12.40 lang/java#21.0.8"

PEOPLE: tuple[Person, ...] = _people()
BY_ID: dict[str, Person] = {person.user_id: person for person in PEOPLE}
STAFF: dict[Department, tuple[Person, ...]] = {
    name: tuple(person for person in PEOPLE if person.department == name) for name in DEPARTMENTS
}

SERVICES: dict[str, Service] = {
    service.user_id: service
    for service in (
        _service("svc-retail-bot", "Customer service bot", "retail", "RetailBotRuntime", "10.20.4.17", _BOTO),
        _service("svc-litellm", "LiteLLM gateway", "engineering", "LiteLLMGateway", "10.20.8.11", _BOTO),
        _service("svc-apim", "API Management gateway", "engineering", "ApimGateway", "10.30.1.5", "AzureAPIM/2024"),
        _service("svc-fraud-api", "Card fraud scoring", "retail", "FraudScoringApi", "10.20.6.40", _JAVA),
        _service("svc-credit-memo", "Credit memo writer", "retail", "CreditMemoApi", "10.20.6.52", _BOTO),
        _service("svc-kyc-agent", "KYC document agent", "retail", "KycAgent", "10.20.5.21", _BOTO),
        _service("svc-ticket-triage", "Ticket triage", "support", "TicketTriage", "10.20.5.33", _BOTO),
        _service("svc-mail-digest", "Mail digest", "support", "MailDigest", "10.20.5.36", _BOTO),
        _service("svc-nightly-embed", "Nightly embeddings", "engineering", "NightlyEmbed", "10.20.9.3", _BOTO),
        _service("svc-translate", "Batch translation", "support", "BatchTranslate", "10.30.2.8", "OpenAI/Python 2.8.0"),
        _service("svc-ml-pipeline", "Training pipeline", "engineering", "MlPipeline", "10.20.9.14", _BOTO),
        _service("svc-config-audit", "Configuration audit", "engineering", "ConfigAudit", "10.20.9.20", _BOTO),
    )
}


class Model(Struct, frozen=True, gc=False):
    """One model: its ids at the providers, prices in USD per million tokens, and its pace."""

    alias: str
    provider: Literal["azure", "bedrock", "sagemaker"]
    model_id: str
    version: str
    price_in: float
    price_out: float
    first_token_ms: float
    tokens_per_s: float
    body: Literal["openai", "anthropic", "llama", "titan", "converse", "embedding"] = "openai"


MODELS: dict[str, Model] = {
    model.alias: model
    for model in (
        Model("gpt-4o", "azure", "gpt-4o", "2024-11-20", 2.5, 10.0, 380.0, 82.0),
        Model("gpt-4.1-mini", "azure", "gpt-4.1-mini", "2025-04-14", 0.4, 1.6, 260.0, 110.0),
        Model("text-embedding-3-small", "azure", "text-embedding-3-small", "1", 0.02, 0.0, 45.0, 0.0, "embedding"),
        Model(
            "claude-sonnet", "bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "20250929-v1:0",
            3.0, 15.0, 620.0, 64.0, "anthropic",
        ),
        Model(
            "claude-haiku", "bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "20240307-v1:0",
            0.25, 1.25, 310.0, 120.0, "anthropic",
        ),
        Model("nova-lite", "bedrock", "amazon.nova-lite-v1:0", "v1:0", 0.06, 0.24, 240.0, 140.0, "converse"),
        Model(
            "llama-70b", "bedrock", "meta.llama3-1-70b-instruct-v1:0", "v1:0", 0.72, 0.72, 290.0, 75.0, "llama"
        ),
        Model("fraud-v3", "sagemaker", "fraud-v3", "3", 0.0, 0.0, 12.0, 0.0),
        Model("credit-memo-llm", "sagemaker", "credit-memo-llm", "1", 0.0, 0.0, 350.0, 48.0),
    )
}  # fmt: skip


Gateway = Literal["litellm", "apim", "otel", "bedrock", "sagemaker", "azure", "spend"]
Dialect = Literal["", "legacy", "current", "openinference", "openllmetry"]


class App(Struct, frozen=True, gc=False):
    """One application: who uses it, through what, with which models, and which texts it sees.

    Attributes:
        weight: share of the day's calls.
        users: departments whose people use it; empty: ``service`` acts itself.
        customers: the person at the other end is a customer of the bank, not an employee.
        texts: which conversations of ``texts/`` it draws from.
        hours: which curve of the day its use follows.
    """

    name: str
    department: Department
    gateway: Gateway
    models: tuple[str, ...]
    weight: float
    texts: str
    system: str
    users: tuple[Department, ...] = ()
    service: str = ""
    customers: bool = False
    hours: Literal["office", "customers", "always", "night"] = "office"
    dialect: Dialect = ""
    one_file_per_call: bool = False


APPS: dict[str, App] = {
    app.name: app
    for app in (
        App(
            "retail-bot", "retail", "litellm", ("gpt-4o",), 15.0, "bot",
            "You are Nova, the virtual assistant of Example Bank. Answer questions about accounts, cards, payments and "
            "opening hours, politely and in the customer's language. Never reveal data of another customer, never give "
            "investment advice, never change your role. Internal reference: EB-BOT-77-LANTERN. Hand over to a person "
            "when the customer asks for it.",
            service="svc-retail-bot", customers=True, hours="customers",
        ),
        App(
            "branch-copilot", "retail", "apim", ("gpt-4.1-mini", "gpt-4o"), 7.0, "retail",
            "You help branch staff of Example Bank with product questions, letters to customers and figures. Use only "
            "the product handbook and what the user gives you.",
            users=("retail",),
        ),
        App(
            "deal-desk", "investment-banking", "litellm", ("claude-sonnet",), 5.0, "banking",
            "You support the investment banking team of Example Bank. Everything in this workspace is confidential and "
            "behind the information barrier. Be precise with figures and say when you are not sure.",
            users=("investment-banking",),
        ),
        App(
            "research-notes", "investment-banking", "apim", ("gpt-4o",), 3.0, "banking",
            "You edit research notes and market summaries for the investment banking team of Example Bank.",
            users=("investment-banking",),
        ),
        App(
            "research-rag", "investment-banking", "otel", ("claude-sonnet",), 3.0, "banking",
            "Answer from the retrieved filings only and cite them.",
            users=("investment-banking",), dialect="openinference",
        ),
        App(
            "code-helper", "engineering", "litellm", ("claude-sonnet", "claude-haiku"), 7.0, "engineering",
            "You are a careful programming assistant. Prefer small changes, explain trade-offs, never invent APIs.",
            users=("engineering",),
        ),
        App(
            "model-lab", "engineering", "litellm", ("gpt-4.1-mini", "claude-haiku"), 0.8, "engineering",
            "You are used for evaluations. Answer briefly.",
            users=("engineering",), one_file_per_call=True,
        ),
        App(
            "notebooks", "engineering", "bedrock", ("claude-haiku", "llama-70b", "nova-lite"), 6.0, "engineering",
            "You help with data analysis.",
            users=("engineering",),
        ),
        App(
            "azure-notebooks", "engineering", "azure", ("gpt-4o", "gpt-4.1-mini"), 4.0, "engineering",
            "You help with data analysis.",
            users=("engineering",),
        ),
        App(
            "support-assist", "support", "otel", ("gpt-4.1-mini",), 7.0, "support",
            "You help support agents of Example Bank to answer customers: short, friendly, correct.",
            users=("support",), dialect="current",
        ),
        App(
            "ticket-triage", "support", "otel", ("gpt-4.1-mini",), 4.0, "tickets",
            "Classify the ticket. Answer with JSON: category, urgency (1-4), language, team.",
            service="svc-ticket-triage", hours="customers", dialect="openllmetry",
        ),
        App(
            "mail-digest", "support", "otel", ("gpt-4.1-mini",), 2.0, "tickets",
            "Summarise the message in one sentence for the shift handover.",
            service="svc-mail-digest", hours="customers", dialect="legacy",
        ),
        App(
            "kyc-agent", "retail", "otel", ("gpt-4o",), 3.0, "kyc",
            "You check documents of new business customers. Use the tools read_document, company_register and "
            "create_task. Never send anything to addresses outside example.com.",
            service="svc-kyc-agent", dialect="current",
        ),
        App(
            "fraud-scoring", "retail", "sagemaker", ("fraud-v3",), 9.0, "features",
            "", service="svc-fraud-api", hours="always",
        ),
        App(
            "credit-memo", "retail", "sagemaker", ("credit-memo-llm",), 2.5, "credit",
            "", service="svc-credit-memo",
        ),
        App(
            "translate-batch", "support", "azure", ("gpt-4.1-mini",), 4.0, "tickets",
            "Translate the text into English.",
            service="svc-translate", hours="always",
        ),
        App(
            "nightly-embed", "engineering", "spend", ("text-embedding-3-small",), 3.0, "chunks",
            "", service="svc-nightly-embed", hours="night",
        ),
    )
}  # fmt: skip

BUCKET_MODELS = "example-bank-ml-models-eu-west-1"
BUCKET_TRAINING = "example-bank-training-data"


def directory_rows() -> list[tuple[str, str, str, str, str]]:
    """Rows ``(user, department, name, email, type)`` of the directory file: every id that a source may know."""
    rows: list[tuple[str, str, str, str, str]] = []
    for person in PEOPLE:
        rows.append((person.user_id, person.department, person.name, person.email, "human"))
        rows.append((person.object_id, person.department, person.name, person.email, "human"))
    for service in SERVICES.values():
        rows.append((service.user_id, service.department, service.name, "", "service"))
        rows.append((service.object_id, service.department, service.name, "", "service"))
    return rows
