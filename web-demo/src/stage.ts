// The tiles: one per person, one per shared screen; screens and whoever is pinned are shown large. Also plays the sounds.
// Called by main.ts at every change.

import type { AudioTrack } from "livekit-client";

import { bestGrid } from "./layout.ts";
import type { Person } from "./people.ts";
import { byId } from "./page.ts";
import { Tile } from "./tile.ts";

/** As `--gap` in style.css. */
const GAP_PX = 10;
/** Below this a face is not recognisable: the grid scrolls instead. */
const SMALLEST_TILE_PX = 130;

export class Stage {
    private readonly tiles = new Map<string, Tile>();
    private readonly playing = new Map<AudioTrack, HTMLMediaElement>();
    private people: Person[] = [];
    private pinned: string | undefined;
    private readonly resized = new ResizeObserver(() => this.layOut());

    constructor() {
        this.resized.observe(byId("stage"));
    }

    update(people: Person[]): void {
        this.people = people;
        const wanted = people.flatMap((person) => {
            const camera = { key: person.identity, kind: "camera" as const, person };
            return person.screen ? [{ key: `${person.identity}/screen`, kind: "screen" as const, person }, camera] : [camera];
        });
        for (const [key, tile] of this.tiles) {
            if (wanted.some((one) => one.key === key)) continue;
            tile.remove();
            this.tiles.delete(key);
            if (this.pinned === key) this.pinned = undefined;
        }
        // One thing is large: what is pinned, else somebody's screen; never one's own screen, which would show itself.
        const large = this.pinned ?? wanted.find((one) => one.kind === "screen" && !one.person.mine)?.key;
        for (const { key, kind, person } of wanted) {
            let tile = this.tiles.get(key);
            if (!tile) this.tiles.set(key, (tile = new Tile(kind, () => this.pin(key))));
            const place = byId(key === large ? "spotlight" : "grid");
            if (tile.root.parentElement !== place) place.append(tile.root);
            tile.update(person, key === this.pinned);
        }
        this.play(people.flatMap((person) => person.sounds));
        this.layOut();
    }

    clear(): void {
        this.update([]);
        this.resized.disconnect();
    }

    private pin(key: string): void {
        this.pinned = this.pinned === key ? undefined : key;
        this.update(this.people);
    }

    private layOut(): void {
        const grid = byId("grid");
        const stage = byId("stage");
        stage.classList.toggle("spotlit", byId("spotlight").childElementCount > 0);
        const { tileWidth, tileHeight } = bestGrid(grid.childElementCount, grid.clientWidth, grid.clientHeight, GAP_PX);
        const width = Math.max(tileWidth, SMALLEST_TILE_PX);
        const height = tileWidth < width ? Math.round((width * 3) / 4) : tileHeight;
        grid.style.setProperty("--tile-width", `${width}px`);
        grid.style.setProperty("--tile-height", `${height}px`);
    }

    private play(sounds: AudioTrack[]): void {
        for (const [track, audio] of this.playing) {
            if (sounds.includes(track)) continue;
            track.detach(audio);
            audio.remove();
            this.playing.delete(track);
        }
        for (const track of sounds) {
            if (this.playing.has(track)) continue;
            const audio = track.attach();
            this.playing.set(track, audio);
            byId("sounds").append(audio);
        }
    }
}
