// The dialog that rolls back: it shows what would change, and asks for the reason.
import { html, useEffect, useRef, useState } from "../lib/dom.js";
import { postJson } from "../lib/api.js";
import { short } from "../lib/format.js";
import { Failure, Time } from "../lib/ui.js";

export function RollBack({ entry, live, close, done }) {
  const dialog = useRef(null);
  const [state, setState] = useState({});
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const why = new FormData(event.currentTarget).get("why").trim();
    if (!why) return;
    setState({ busy: true });
    try {
      await postJson("/v1/rollback", { to: entry.revision, why });
      dialog.current?.close();
      done();
    } catch (error) {
      setState({ error });
    }
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="rollback-title"><form onSubmit=${submit}>
    <h2 id="rollback-title">Roll back to ${short(entry.revision)}?</h2>
    <p>Flip ${entry.flip}, of <${Time} at=${entry.at} /> by ${entry.by}: ${entry.why || "no reason was given"}</p>
    <p class="note">${live ? `Revision ${short(live.revision)}, which is live, is marked as bad and is not published again by itself.` : ""} Callers get the earlier rules within seconds. A local stack stops following its rules directory, until <code>tidegate follow resume</code>.</p>
    <div class="field"><label for="why">Why</label><textarea id="why" name="why" rows="2" required maxlength="500"></textarea><span class="note">It is kept in the history and in the audit log.</span></div>
    ${state.error && html`<${Failure} error=${state.error} />`}
    <div class="actions end"><button type="button" onClick=${() => dialog.current.close()}>Cancel</button><button type="submit" class="danger" disabled=${state.busy}>${state.busy ? "Rolling back …" : "Roll back"}</button></div>
  </form></dialog>`;
}
