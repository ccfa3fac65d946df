import assert from "node:assert/strict";
import { test } from "node:test";

import { bestGrid } from "../src/layout.ts";

const GAP = 10;

test("tiles never overflow and keep their shape", () => {
    for (let count = 1; count <= 30; count++) {
        for (const [width, height] of [
            [1376, 780],
            [344, 560],
            [800, 300],
            [300, 900],
        ] as const) {
            const { columns, tileWidth, tileHeight } = bestGrid(count, width, height, GAP);
            const rows = Math.ceil(count / columns);
            assert.ok(columns * tileWidth + (columns - 1) * GAP <= width, `${count} in ${width}×${height}: too wide`);
            assert.ok(rows * tileHeight + (rows - 1) * GAP <= height, `${count} in ${width}×${height}: too high`);
            assert.ok(
                tileWidth / tileHeight > 0.98 && tileWidth / tileHeight < 1.82,
                `${count} in ${width}×${height}: ${tileWidth}×${tileHeight}`,
            );
        }
    }
});

test("side by side on a desk, one above the other on a phone", () => {
    assert.equal(bestGrid(2, 1376, 780, GAP).columns, 2);
    assert.equal(bestGrid(2, 344, 560, GAP).columns, 1);
    assert.equal(bestGrid(4, 1376, 780, GAP).columns, 2);
});

test("no space is no tile, not a crash", () => {
    assert.deepEqual(bestGrid(3, 0, 0, GAP), { columns: 1, tileWidth: 0, tileHeight: 0 });
});
