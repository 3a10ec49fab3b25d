"""Pages of constructs that a policy or a companion header may stop.

Each page sets ``window.result`` to one text that says what a user would see. ``here`` is the site,
``other`` another one. A name that begins with ``by other`` is a page of the other site.
"""

from __future__ import annotations

HEAD = """<!doctype html><title>-</title><script>
function done(text) { if (window.result === undefined) window.result = String(text) }
function listen() { onmessage = event => done('message ' + event.data) }
function look(id) { return getComputedStyle(document.getElementById(id)).color }
</script>"""
QUIRKS = HEAD.removeprefix("<!doctype html>")

_PAGES: dict[str, str] = {
    # --- plug-ins and embedded documents
    "object drawing": """<object id=o type="image/svg+xml" data="/chart.svg"
        onload="done(o.contentDocument.documentElement.nodeName)" onerror="done('fallback')">
        no chart</object>""",
    "object page": """<object id=o type="text/html" data="/styled-inner"
        onload="done(o.contentDocument.body.textContent)" onerror="done('fallback')"></object>""",
    "object image": """<object id=o data="/pixel.png" onload="done('image')"
        onerror="done('fallback')"></object>""",
    "object missing": """<object id=o data="/nothing" onload="done('loaded')"
        onerror="done('fallback')">text</object>""",
    "object other site": """<script>listen()</script><object data="{{ other }}/says"></object>""",
    "embed drawing": """<embed id=o type="image/svg+xml" src="/chart.svg"
        onload="done(o.getSVGDocument().documentElement.nodeName)">""",
    "embed page": """<script>listen()</script><embed type="text/html" src="/says">""",
    # --- base
    "base other site": """<base href="{{ other }}/"><a id=a href="x">x</a>
        <img src="pixel.png" onload="done(a.href + ' ' + this.src)" onerror="done('no image')">""",
    "base script of other site": """<base href="{{ other }}/">
        <script src="lib.js" onerror="done('stopped')"></script>
        <script>done(window.lib)</script>""",
    "base own path": """<base href="/page/x/"><a id=a href="y">y</a>
        <script>done(a.href)</script>""",
    # --- frames
    "frame drawing": """<script>listen()</script><iframe src="/chart.svg"></iframe>""",
    "frame other site": """<script>listen()</script><iframe src="{{ other }}/says"></iframe>""",
    "frame srcdoc": """<script>listen()</script>
        <iframe srcdoc="<script>parent.postMessage('srcdoc ' + origin, '*')</script>"></iframe>""",
    "frame data address": """<script>listen()</script>
        <iframe src="data:text/html,<script>parent.postMessage('data','*')</script>"></iframe>""",
    "frame blob": """<script>listen(); const f = document.createElement('iframe');
        const text = "<script>parent.postMessage('blob','*')</" + "script>";
        f.src = URL.createObjectURL(new Blob([text], {type: 'text/html'}));
        document.documentElement.append(f)</script>""",
    "frame javascript address": """<script>listen()</script>
        <iframe src="javascript:parent.postMessage('javascript','*')"></iframe>""",
    "frame sandbox": """<script>listen()</script>
        <iframe sandbox="allow-scripts" src="/says"></iframe>""",
    "frame written to": """<iframe id=f src="/inner" onload="
        if (!window.once) { window.once = 1; f.contentDocument.open();
        f.contentDocument.write('<script>parent.done(\\'written\\')</' + 'script>');
        f.contentDocument.close() }"></iframe>""",
    "frame of data, written to": """<iframe id=f src="/data.json" onload="
        const d = f.contentDocument, s = d.createElement('script'), i = d.createElement('img');
        s.textContent = 'window.ran = 1'; d.body.append(s); i.src = '/pixel.png';
        i.onload = () => done('image ' + f.contentWindow.ran);
        i.onerror = () => done('no image ' + f.contentWindow.ran); d.body.append(i)"></iframe>""",
    "frame of an image, written to": """<iframe id=f src="/pixel.png" onload="
        const d = f.contentDocument, s = d.createElement('script');
        s.textContent = 'window.ran = 1'; d.body.append(s);
        done(d.images.length + ' ' + d.images[0].naturalWidth + ' ' + f.contentWindow.ran)">
        </iframe>""",
    "frame of what is sniffed": """<iframe id=f src="/unnamed"
        onload="done(f.contentDocument.contentType + f.contentDocument.body.textContent)">
        </iframe>""",
    # --- framed, embedded and opened by the other site
    "by other: framed": """<script>listen()</script><iframe src="{{ here }}/says"></iframe>""",
    "by other: framed drawing": """<script>listen()</script>
        <iframe src="{{ here }}/chart.svg"></iframe>""",
    "by other: framed data": """<iframe src="{{ here }}/data.json" onload="done('loaded')">
        </iframe>""",
    "by other: framed files": """<iframe src="{{ here }}/notes.txt"></iframe>
        <iframe src="{{ here }}/pixel.png"></iframe><iframe src="{{ here }}/style.css"></iframe>
        <script>onload = () => done('loaded')</script>""",
    "by other: object": """<script>listen()</script>
        <object type="text/html" data="{{ here }}/says"></object>""",
    "by other: popup that keeps its opener": """<script>
        onmessage = e => e.data === 'ready' ? e.source.postMessage('hello', '*')
            : done(e.data + ', closed: ' + popup.closed);
        const popup = open('{{ here }}/says-opener')</script>""",
    "by other: popup that is moved": """<script>
        onmessage = e => { if (e.data === 'said') { done('said, closed: ' + popup.closed) } };
        const popup = open('{{ here }}/inner'); let tries = 0;
        const timer = setInterval(() => { if (window.result || tries++ > 40) clearInterval(timer);
            else popup.location = '{{ here }}/says' }, 250)</script>""",
    "by other: embedded files": """<script src="{{ here }}/lib.js"></script>
        <link rel=stylesheet href="{{ here }}/style.css"><p id=p>p</p>
        <img src="{{ here }}/pixel.png" onload="done([this.naturalWidth, window.lib, look('p')])"
        onerror="done('no image')">""",
    "by other: wrong types": """<script src="{{ here }}/script-as-html" onerror="done('stopped')">
        </script><script>setTimeout(() => done('nothing'), 9000)</script>""",
    "by other: fetched blindly": """<script>fetch('{{ here }}/data.json', {mode: 'no-cors'})
        .then(r => done(r.type), e => done(e))</script>""",
    # --- popups of the site itself
    "popup of the other site": """<script>
        onmessage = e => e.data === 'ready' ? e.source.postMessage('hello', '*') : done(e.data);
        const popup = open('{{ other }}/says-opener')</script>""",
    "popup of data, written to": """<script>const popup = open('/data.json');
        const timer = setInterval(() => { let d; try { d = popup.document } catch (e) { return }
            if (!d.body || d.readyState !== 'complete') return;
            if (popup.location.pathname !== '/data.json') return;
            clearInterval(timer); const s = d.createElement('script'), i = d.createElement('img');
            s.textContent = 'window.ran = 1'; d.body.append(s);
            i.onload = () => done('image ' + popup.ran);
            i.onerror = () => done('none ' + popup.ran);
            i.src = '/pixel.png'; d.body.append(i) }, 50)</script>""",
    # --- scripts and styles with a wrong type
    **{
        f"script as {kind}": f"""<script src="/script-as-{kind}" onerror="done('stopped')"></script>
        <script>done('nothing ran')</script>"""
        for kind in ("html", "plain", "nothing", "bytes", "json", "image")
    },
    **{
        f"style as {kind} in quirks mode": QUIRKS
        + f"""<link rel=stylesheet href="/style-as-{kind}"><p id=p>p</p>
        <script>onload = () => done(look('p'))</script>"""
        for kind in ("plain", "html")
    },
    "style as plain": """<link rel=stylesheet href="/style-as-plain" onload="done('loaded')"
        onerror="done('stopped')">""",
    "images as texts": """<img id=i src="/image-as-plain"><img id=j src="/image-as-html">
        <script>onload = () => done([i.naturalWidth, j.naturalWidth])</script>""",
    "text that may be sniffed": """<script>fetch('/unnamed').then(async r => done(
        [r.headers.get('content-type'), (await r.blob()).type]))</script>""",
    # --- workers
    "worker": """<script>const w = new Worker('/worker.js'); w.onmessage = e => done(e.data);
        w.onerror = () => done('stopped'); w.postMessage(1)</script>""",
    "worker that evaluates": """<script>const w = new Worker('/eval-worker.js');
        w.onmessage = e => done(e.data); w.onerror = () => done('stopped')</script>""",
    "worker that fetches": """<script>const w = new Worker('/fetching-worker.js');
        w.onmessage = e => done(e.data); w.onerror = () => done('stopped')</script>""",
    "worker that imports": """<script>const w = new Worker('/importing-worker.js');
        w.onmessage = e => done(e.data); w.onerror = () => done('stopped')</script>""",
    "worker as html": """<script>const w = new Worker('/script-as-html');
        w.onmessage = e => done(e.data); w.onerror = e => done('stopped ' + e.message)</script>""",
    "worker blob": """<script>const blob = new Blob(["postMessage(1)"]);
        const w = new Worker(URL.createObjectURL(blob));
        w.onmessage = e => done('blob ' + e.data); w.onerror = () => done('stopped')</script>""",
    "worker data address": """<script>const w = new Worker('data:text/javascript,postMessage(1)');
        w.onmessage = e => done('data ' + e.data); w.onerror = () => done('stopped')</script>""",
    "shared worker": """<script>const w = new SharedWorker('/shared-worker.js');
        w.port.onmessage = e => done(e.data); w.onerror = () => done('stopped')</script>""",
    "service worker": """<script>navigator.serviceWorker.register('/sw.js').then(async r => {
        await navigator.serviceWorker.ready;
        if (!navigator.serviceWorker.controller)
            await new Promise(go => navigator.serviceWorker.oncontrollerchange = go);
        const text = await (await fetch('/made-by-worker')).text();
        await r.unregister(); done(text) }).catch(done)</script>""",
    # --- forms, links, addresses
    "form to the other site, in a frame": """<script>listen()</script><iframe name=f></iframe>
        <form id=g method=post action="{{ other }}/echo" target=f><input name=word value=hi></form>
        <script>g.submit()</script>""",
    "form to the other site": """<form id=g action="{{ other }}/echo"><input name=word value=hi>
        </form><script>g.submit()</script>""",
    "form to a script": """<form id=g action="javascript:done('form')"><button>b</button></form>
        <script>g.requestSubmit()</script>""",
    "form with a handler": """<form id=g action="/form" method=post target=f
        onsubmit="done('handler'); return false"><button id=b>b</button></form>
        <iframe name=f></iframe>
        <script>b.click()</script>""",
    "link to a script": """<a id=a href="javascript:done('link')">a</a>
        <script>a.click()</script>""",
    "link to the other site": """<a id=a href="{{ other }}/tells-referrer">a</a>
        <script>a.click()</script>""",
    "redirect to the other site": """<meta name=referrer content=unsafe-url>
        <script>location = '/out?to=tells-referrer'</script>""",
    "handlers": """<button id=b onclick="this.said = 'click'">b</button><img src="/none"
        onerror="b.click(); done(b.said + ' error')">""",
    "data image": """<img src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='3'
        height='3'/>" onload="done(this.naturalWidth)" onerror="done('stopped')">""",
    "data script": """<script src="data:text/javascript,done('data')" onerror="done('stopped')">
        </script>""",
    "blob script": """<script>const s = document.createElement('script');
        s.src = URL.createObjectURL(new Blob(["done('blob')"])); s.onerror = () => done('stopped');
        document.documentElement.append(s)</script>""",
    # --- code
    "text as code": """<script>const said = [];
        try { said.push(eval('1+1')) } catch (e) { said.push(e.name) }
        try { said.push(new Function('return 3')()) } catch (e) { said.push(e.name) }
        setTimeout("done(said)"); setTimeout(() => done(said + ' no text'), 500)</script>""",
    "webassembly": """<script>WebAssembly.instantiateStreaming(fetch('/module.wasm'))
        .then(() => WebAssembly.compile(new Uint8Array([0,97,115,109,1,0,0,0])))
        .then(() => done('compiled'), e => done(e.name))</script>""",
    "scripts that load scripts": """
        <script>document.write('<script src=/lib.js></' + 'script>')</script>
        <script>const s = document.createElement('script'); s.src = '{{ other }}/lib.js';
        const first = window.lib; window.lib = 0; s.onload = () => done([first, window.lib]);
        s.onerror = () => done('stopped'); document.documentElement.append(s)</script>""",
    "inserted html": """<p id=p></p><script>p.innerHTML =
        '<img src=/none onerror="done(\\'inserted\\')"><style>#p { color: rgb(4, 5, 6) }</style>';
        document.title = look('p')</script>""",
    "jsonp": """<script>function answer(data) { done('jsonp ' + data.a) }</script>
        <script src="{{ other }}/jsonp" onerror="done('stopped')"></script>""",
    "modules": """<script type=importmap>{"imports": {"mine": "/module.js"}}</script>
        <script type=module>import { name } from 'mine'; const again = await import('/module.js');
        done(name + ' ' + again.name)</script>""",
    "script with a text": """<div id=p></div><script>const s = document.createElement('script');
        s.text = "done('text')"; p.setAttribute('onclick', '1'); p.append(s)</script>""",
    # --- styles, fonts, media
    "styles": """<style>#p { color: rgb(7, 8, 9) }</style><p id=p style="font-weight: 900">p</p>
        <link rel=stylesheet href="/style.css"><script>const s = document.createElement('style');
        s.textContent = 'p { margin: 3px }'; document.head.append(s);
        onload = () => { const got = getComputedStyle(p);
            done([got.color, got.fontWeight, got.margin]) }</script>""",
    "style of the other site": """<link rel=stylesheet href="{{ other }}/style.css"
        onload="done(look('p'))" onerror="done('stopped')"><p id=p>p</p>""",
    "imported style": """<style>@import "{{ other }}/style.css";</style><p id=p>p</p>
        <script>onload = () => done(look('p'))</script>""",
    "font": """<script>const places = ['/font.ttf', '{{ other }}/font.ttf'];
        Promise.allSettled(places.map(p => new FontFace('f', `url(${p})`).load())).then(all => done(
        all.map(a => a.reason && a.reason.name) + places.map(p => performance.getEntriesByName(
        new URL(p, location).href).map(e => e.responseStatus))))</script>""",
    "media": """<audio src="/tone.wav" onloadedmetadata="done(this.duration)"
        onerror="done('stopped')"></audio>""",
    "media of the other site": """<audio src="{{ other }}/tone.wav"
        onloadedmetadata="done(this.duration)" onerror="done('stopped')"></audio>""",
    # --- connections
    "fetches": """<script>Promise.allSettled([fetch('/data.json').then(r => r.json()),
        fetch('{{ other }}/data.json').then(r => r.json())]).then(all => done(JSON.stringify(all)))
        </script>""",
    "event stream": """<script>const s = new EventSource('/events');
        s.onmessage = e => { s.close(); done(e.data) };
        s.onerror = () => done('stopped')</script>""",
    "beacon": """<script>done(navigator.sendBeacon('{{ other }}/echo', 'x'))</script>""",
    "prefetch": """<link rel=prefetch href="/lib.js" onload="done('prefetched')"
        onerror="done('stopped')">""",
    "preload": """<link rel=preload as=script href="/lib.js" onload="done('preloaded')"
        onerror="done('stopped')"><script src="/lib.js"></script>""",
    "modulepreload": """<link rel=modulepreload href="/module.js" onload="done('preloaded')"
        onerror="done('stopped')">""",
    "manifest": """<link rel=manifest href="/app.webmanifest"><script>done('manifest')</script>""",
    "manifest as plain": """<link rel=manifest href="/manifest-as-plain">
        <script>done('manifest')</script>""",
    # --- what browsers tell
    "referrer": """<script>Promise.all(['{{ other }}/referrer', '/out?to=referrer'].map(
        p => fetch(p).then(r => r.text()))).then(done)</script>""",
    "referrer of the page's choice": """<meta name=referrer content=unsafe-url>
        <script>Promise.all(['{{ other }}/referrer', '/out?to=referrer'].map(
        p => fetch(p).then(r => r.text()))).then(done)</script>""",
    "referrer of a link's choice": """<a id=a href="{{ other }}/tells-referrer"
        referrerpolicy=unsafe-url>a</a><script>a.click()</script>""",
    "permissions": """<script>
        const names = ['geolocation', 'camera', 'microphone', 'notifications'];
        Promise.all(names.map(name => navigator.permissions.query({name}).then(p => p.state))).then(
        all => done(all + ' ' + document.featurePolicy.allowedFeatures().sort()))</script>""",
    "geolocation": """<script>navigator.geolocation.getCurrentPosition(
        p => done(p.coords.latitude), e => done(e.message))</script>""",
    "isolation": """<script>let set = 'set';
        try { document.domain = document.domain } catch (e) { set = e.name }
        done([typeof SharedArrayBuffer, crossOriginIsolated, originAgentCluster, set,
        document.contentType, document.compatMode, opener])</script>""",
    "opener of the page": """<script>const w = open('/inner'); const timer = setInterval(() => {
        if (w.document.readyState === 'complete' && w.location.pathname === '/inner') {
        clearInterval(timer); done([w.opener === window, w.document.body.textContent]) } }, 50)
        </script>""",
    "download": """<a id=a href="/download" download>a</a>
        <script>a.click(); done('asked')</script>""",
    "storage": """<script>localStorage.a = 'kept'; document.cookie = 'b=c';
        done([localStorage.a, document.cookie])</script>""",
}

PAGES: dict[str, str] = {
    name: text if text.startswith(QUIRKS) else HEAD + text for name, text in _PAGES.items()
}
