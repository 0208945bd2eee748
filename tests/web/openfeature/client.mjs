// Evaluates flags by OpenFeature's SDKs for servers and for browsers, and prints what they got as JSON.
// Arguments: the gateway's URL, and the caller's name.
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature as WebOpenFeature } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";

const [baseUrl, caller] = process.argv.slice(2);
const statuses = [];
const options = { baseUrl, headers: [["Tidegate-Caller", caller]] };
const shown = ({ value, reason, variant, errorCode, flagMetadata }) => ({ value, reason, variant, error: errorCode ?? null, metadata: flagMetadata });

await OpenFeature.setProviderAndWait(new OFREPProvider(options));
const client = OpenFeature.getClient();
const ask = async (flag, context) => shown(await client.getStringDetails(flag, "default", context));
const server = {
  static: await ask("static", {}),
  match: await ask("echoing", { targetingKey: "42", country: "SE" }),
  split: await ask("echoing", { targetingKey: "42", device: "tv" }),
  "missing key": await ask("members", { device: "tv" }),
  "wrong type": await ask("echoing", { targetingKey: "42", is_kids: "yes" }),
  "unknown flag": await ask("nothing", { targetingKey: "42" }),
  "no rule": await ask("members", { targetingKey: "42", device: "mobile" }),
};

// The provider for browsers gets all flags at once, and asks again with the tag of what it has.
const unchanged = Promise.withResolvers();
const noted = async (request, init) => {
  const response = await fetch(request, init);
  statuses.push(response.status);
  if (response.status === 304) unchanged.resolve();
  return response;
};
const provider = new OFREPWebProvider({ ...options, fetchImplementation: noted, pollInterval: 20, cacheMode: "disabled" });
await WebOpenFeature.setContext({ targetingKey: "42", device: "tv" });
await WebOpenFeature.setProviderAndWait(provider);
const flag = () => shown(WebOpenFeature.getClient().getStringDetails("echoing", "default"));
const browser = { split: flag() };
await unchanged.promise;
await WebOpenFeature.setContext({ targetingKey: "42", device: "tv", country: "SE" });
browser.match = flag();
browser.statuses = [...new Set(statuses)].sort();

console.log(JSON.stringify({ server, browser }));
process.exit(0);
