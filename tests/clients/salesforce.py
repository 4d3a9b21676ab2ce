"""simple-salesforce against our fake of Salesforce: BASE_URL ACCESS_TOKEN. Prints what it found, as JSON."""
import datetime
import json
import sys
from urllib.parse import urlsplit, urlunsplit

import requests
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import SalesforceExpiredSession, SalesforceMalformedRequest


class Plain(requests.adapters.HTTPAdapter):
    """The library writes https:// before every host; the fake speaks plain http on loopback."""

    def send(self, request, **more):
        request.url = urlunsplit(urlsplit(request.url)._replace(scheme="http"))
        return super().send(request, **more)


def refused(call):
    try:
        call()
    except (SalesforceExpiredSession, SalesforceMalformedRequest) as error:
        return error.content[0]["errorCode"]
    return None


base, token = sys.argv[1:3]
session = requests.Session()
session.trust_env = False
session.mount("https://", Plain())
client = Salesforce(instance_url=base, session_id=token, version="66.0", session=session)
end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=2)
start = end - datetime.timedelta(days=1)
everything = client.query_all("SELECT Id, Name, Tier__c FROM Account ORDER BY SystemModstamp, Id")
binned = client.query_all("SELECT Id FROM Account WHERE IsDeleted = true ORDER BY Id", include_deleted=True)
stranger = Salesforce(instance_url=base, session_id="no-token", version="66.0", session=session)
print(json.dumps({
    "total": everything["totalSize"],
    "names": [record["Name"] for record in everything["records"]],
    "binned": [record["Id"] for record in binned["records"]],
    "deleted": [record["id"] for record in client.Account.deleted(start, end)["deletedRecords"]],
    "custom": [field["name"] for field in client.Account.describe()["fields"] if field["custom"]],
    "hidden": refused(lambda: client.query("SELECT Nothing__c FROM Account")),
    "stranger": refused(lambda: stranger.query("SELECT Id FROM Account")),
    "usage": client.api_usage["api-usage"]._asdict(),
}))
