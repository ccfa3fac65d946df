// How large the tiles are. Called by stage.ts whenever people or the window change. Pure.

export interface Grid {
    columns: number;
    /** CSS pixels. */
    tileWidth: number;
    tileHeight: number;
}

/** Cameras send 16:9; a tile may be cropped as far as square before faces are lost. */
const WIDE = 16 / 9;
const NARROW = 1;

/** The columns that give `count` tiles the largest area inside width × height (CSS pixels), with `gap` between them. */
export function bestGrid(count: number, width: number, height: number, gap: number): Grid {
    let best: Grid = { columns: 1, tileWidth: 0, tileHeight: 0 };
    for (let columns = 1; columns <= Math.max(1, count); columns++) {
        const rows = Math.ceil(count / columns);
        const cellWidth = (width - gap * (columns - 1)) / columns;
        const cellHeight = (height - gap * (rows - 1)) / rows;
        if (cellWidth <= 0 || cellHeight <= 0) continue;
        const aspect = Math.min(WIDE, Math.max(NARROW, cellWidth / cellHeight));
        const tileWidth = Math.min(cellWidth, cellHeight * aspect);
        const tileHeight = tileWidth / aspect;
        if (tileWidth * tileHeight > best.tileWidth * best.tileHeight) {
            best = { columns, tileWidth: Math.floor(tileWidth), tileHeight: Math.floor(tileHeight) };
        }
    }
    return best;
}
