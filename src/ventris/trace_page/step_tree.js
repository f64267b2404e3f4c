"use strict";
// What a step drafted, what became of it and why. Needs elements.js.
//
// names: token id to visible text; sources: { name, label, hue } by the numbers that steps refer to.
// onPoint(event, content), onLeave() and onChoose(node) are told what the pointer does on the tree.
function stepTree({ names, sources, onPoint, onLeave, onChoose }) {
  const SIGNS = /([␣↵⇥␍]|⟨[^⟩]*⟩)/u;
  const nameParts = (id) => names[id].split(SIGNS).filter(Boolean)
    .map((part) => (SIGNS.test(part) ? el("span", { class: "ghost" }, part) : part));
  const token = (id, hue = "") => el("code", { class: `token ${hue && `h-${hue}`}` }, nameParts(id));

  const childrenOf = (step, node) => step.parents.flatMap((parent, child) => (parent === node && child ? [child] : []));

  // Why a draft was not kept

  function verdicts(step) {
    const kept = new Set(step.kept);
    const visits = new Map(step.visits.map((visit) => [visit.node, visit]));
    return step.tokens.map((id, node) => {
      if (node === 0) return { state: "root" };
      const visit = visits.get(step.parents[node]);
      if (kept.has(node)) return { state: "kept", visit };
      return visit ? { state: "refused", visit } : { state: "unjudged" };
    });
  }

  function logpAt(visit, id) {
    if (!visit) return null;
    if (visit.token === id && visit.logp !== null) return visit.logp;
    return (visit.guided ?? visit.raw).find(([other]) => other === id)?.[1] ?? null;
  }

  function chanceAt(visit, id) {
    const known = logpAt(visit, id);
    if (known !== null) return `p ${chance(known).replace("<", "< ")}`;
    if (visit?.raw.some(([other, , fate]) => other === id && fate === "forbidden")) return "forbidden";
    const seen = visit ? visit.guided ?? visit.raw : [];
    return seen.length ? `p < ${atMost(seen[seen.length - 1][1])}` : "";
  }

  function reason(visit) {
    const best = (visit.guided ?? visit.raw)[0]?.[0];
    const source = sources[visit.source];
    const p = visit.logp === null ? [] : [` (p = ${chance(visit.logp)})`];
    const chosen = [token(visit.token, source.hue), ...p];
    if (source.hue === "guide") return ["guides left only ", ...chosen];
    if (source.hue === "judge") return [`${source.name} chose `, ...chosen];
    if (visit.token !== best) return [best === undefined ? "the verifier took " : "the target's draw was ", ...chosen];
    return [visit.guided && visit.raw[0]?.[0] !== best ? "under its guides the target preferred " : "the target preferred ", ...chosen];
  }

  function reasons(step) {
    const refused = new Map();
    let never = 0;
    verdicts(step).forEach(({ state, visit }, node) => {
      if (state === "unjudged") never += 1;
      if (state === "refused") refused.set(visit, [...(refused.get(visit) ?? []), node]);
    });
    const lines = [...refused].map(([visit, nodes]) => el("li", {},
      nodes.flatMap((node, i) => [i ? ", " : "", token(step.tokens[node])]), " after ", token(step.tokens[visit.node]),
      ": ", reason(visit)));
    if (never) lines.push(el("li", { class: "never" }, `${plural(never, "draft")} never judged: a token before ${never === 1 ? "it" : "them"} was not kept`));
    return lines.length ? el("ul", { class: "reasons" }, lines) : null;
  }

  // The draft tree: the kept path runs straight along the top, branches hang below it

  const NODE = { height: 26, row: 50, gap: 26, letter: 7.9, letters: 16 };

  function layOut(step) {
    const marks = verdicts(step);
    const nodes = step.tokens.map((id, i) => ({ id, i, ...marks[i], depth: 0, below: childrenOf(step, i) }));
    const last = step.visits[step.visits.length - 1];
    // The target's own token at the end of the path is no draft, so it is not in the tree yet.
    if (last && !step.kept.some((node) => step.parents[node] === last.node && node)) {
      nodes.push({ id: last.token, i: nodes.length, state: "own", visit: last, depth: 0, below: [], parent: last.node });
      nodes[last.node].below = [nodes.length - 1, ...nodes[last.node].below];
    }
    const kept = new Set(step.kept);
    const widths = [];
    let row = 0;
    const place = (node, depth) => {
      node.depth = depth;
      node.row = row;
      node.label = shorten(names[node.id], NODE.letters);
      node.width = Math.max(30, [...node.label].length * NODE.letter + 18);
      widths[depth] = Math.max(widths[depth] ?? 62, node.width);
      const order = [...node.below].sort((a, b) => kept.has(b) - kept.has(a));
      order.forEach((child, i) => {
        if (i) row += 1;
        place(nodes[child], depth + 1);
      });
    };
    place(nodes[0], 0);
    const left = widths.map((_, depth) => sum(widths.slice(0, depth)) + depth * NODE.gap);
    for (const node of nodes) {
      node.x = left[node.depth] + 1;
      node.y = 24 + node.row * NODE.row;
    }
    const end = widths.length - 1;
    return { nodes, left, width: left[end] + widths[end] + 4, height: 24 + row * NODE.row + 48 };
  }

  const STATES = {
    root: "the last token before this step", kept: "drafted and kept", refused: "drafted and refused",
    unjudged: "drafted, but never judged", own: "not drafted",
  };

  function drawTree(step) {
    const { nodes, left, width, height } = layOut(step);
    const hueOf = (node) => (node.visit ? sources[node.visit.source].hue : "target");
    const edges = nodes.slice(1).map((node) => {
      const parent = nodes[node.parent ?? step.parents[node.i]];
      const from = [parent.x + parent.width, parent.y + NODE.height / 2];
      const to = [node.x, node.y + NODE.height / 2];
      const bend = to[0] - NODE.gap / 2;
      const d = from[1] === to[1] ? `M${from}H${to[0]}` : `M${from}H${bend - 9}C${bend + 3} ${from[1]} ${bend - 7} ${to[1]} ${bend + 7} ${to[1]}H${to[0]}`;
      return svg("path", { class: `edge ${node.state} h-${hueOf(node)}`, d });
    });
    // Kept edges last, so that they lie on top where edges run together.
    edges.sort((a, b) => a.classList.contains("kept") - b.classList.contains("kept"));
    const boxes = nodes.map((node) => {
      const below = node.state === "root" ? "" : node.state === "unjudged" ? "not judged" : chanceAt(node.visit, node.id);
      return svg("g", {
        class: `node ${node.state} h-${hueOf(node)}`, transform: `translate(${node.x} ${node.y})`,
        onmousemove: (event) => onPoint?.(event, nodeTip(step, node)), onmouseleave: () => onLeave?.(),
        onclick: () => onChoose?.(node.state === "own" ? node.parent : node.i),
      },
      svg("rect", { width: node.width, height: NODE.height, rx: 6 }),
      svg("text", { class: "name", x: 9, y: NODE.height / 2 + 0.5 }, node.label),
      svg("text", { class: "small", x: 3, y: NODE.height + 9 }, below));
    });
    const heads = left.map((x, depth) => svg("text", { class: "small", x: x + 3, y: 8 }, depth ? `+${depth}` : "last token"));
    return el("div", { class: "tree" }, svg("svg", { width, height, role: "img", "aria-label": summary(step) }, heads, edges, boxes));
  }

  function nodeTip(step, node) {
    const where = node.visit ? chanceAt(node.visit, node.id) : "";
    const drafted = node.state !== "root" && node.state !== "own";
    return [
      el("p", {}, token(node.id), ` token ${node.id}`),
      el("p", { class: "quiet" }, [STATES[node.state], where].filter(Boolean).join(", ")),
      drafted ? el("p", { class: "quiet" }, `the drafter's own estimate: ${step.confidence[node.i]}`) : null,
      node.state === "refused" ? el("p", {}, reason(node.visit)) : null,
    ];
  }

  function summary(step) {
    const drafts = step.tokens.length - 1;
    const gained = `${plural(step.count, "token")} from one target pass.`;
    if (!drafts) return `Nothing was drafted: ${gained}`;
    const kept = step.kept.length - 1;
    const shape = new Set(step.parents).size < step.parents.length ? "in a tree" : drafts > 1 ? "in a chain" : "";
    const who = sources[step.drafter].name || "The drafter";
    return `${who} drafted ${plural(drafts, "token")} ${shape}`.trimEnd() + `, ${kept || "none"} kept: ${gained}`;
  }

  return { nameParts, token, childrenOf, chanceAt, reasons, drawTree, summary };
}
