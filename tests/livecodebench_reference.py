"""A correct solution for each bundled LiveCodeBench-style problem: shows that every problem can be solved."""

SOLUTIONS = {
    "plum-e1": "a, b = map(int, input().split())\nprint(a + b)\n",
    "plum-e2": "n = int(input())\nprint('even' if n % 2 == 0 else 'odd')\n",
    "plum-e3": "print(input().strip()[::-1])\n",
    "plum-e4": "class Solution:\n    def largest(self, nums):\n        return max(nums)\n",
    "plum-e5": "class Solution:\n    def countVowels(self, s):\n        return sum(c in 'aeiou' for c in s)\n",
    "plum-e6": "n = int(input())\nnums = list(map(int, input().split()))\nprint(sum(nums))\n",
    "plum-m1": """n, t = map(int, input().split())
best = None
times = []
for _ in range(n):
    times.append(int(input()))
times.sort()
used = count = 0
for minutes in times:
    if used + minutes > t:
        break
    used += minutes
    count += 1
print(count)
""",
    "plum-m2": """s = input().strip()
stack = []
pairs = {')': '(', ']': '[', '}': '{'}
good = True
for c in s:
    if c in '([{':
        stack.append(c)
    elif not stack or stack.pop() != pairs[c]:
        good = False
        break
print('YES' if good and not stack else 'NO')
""",
    "plum-m3": """class Solution:
    def longestPlateau(self, heights):
        best = run = 0
        previous = None
        for h in heights:
            run = run + 1 if h == previous else 1
            previous = h
            best = max(best, run)
        return best
""",
    "plum-m4": """class Solution:
    def firstRepeated(self, words):
        seen = set()
        for word in words:
            if word in seen:
                return word
            seen.add(word)
        return ""
""",
    "plum-m5": """n, q = map(int, input().split())
values = list(map(int, input().split()))
prefix = [0]
for v in values:
    prefix.append(prefix[-1] + v)
for _ in range(q):
    left, right = map(int, input().split())
    print(prefix[right] - prefix[left - 1])
""",
    "plum-h1": """import heapq
n, m = map(int, input().split())
edges = [[] for _ in range(n + 1)]
for _ in range(m):
    a, b, w = map(int, input().split())
    edges[a].append((b, w))
    edges[b].append((a, w))
best = {1: 0}
heap = [(0, 1)]
while heap:
    d, node = heapq.heappop(heap)
    if d > best[node]:
        continue
    for other, w in edges[node]:
        if max(d, w) < best.get(other, 10 ** 18):
            best[other] = max(d, w)
            heapq.heappush(heap, (best[other], other))
print(best.get(n, -1))
""",
    "plum-h2": """class Solution:
    def minCuts(self, s):
        n = len(s)
        best = list(range(n + 1))
        for end in range(1, n + 1):
            for start in range(end):
                if len(set(s[start:end])) == end - start:
                    best[end] = min(best[end], best[start] + 1)
        return best[n]
""",
    "plum-h3": """n, k = map(int, input().split())
ways = [1] + [0] * n
for i in range(1, n + 1):
    ways[i] = sum(ways[max(0, i - k):i]) % 1000000007
print(ways[n])
""",
    "plum-h4": """class Solution:
    def countInversions(self, nums):
        def sort(values):
            if len(values) < 2:
                return values, 0
            middle = len(values) // 2
            left, a = sort(values[:middle])
            right, b = sort(values[middle:])
            merged, total, i = [], a + b, 0
            for v in right:
                while i < len(left) and left[i] <= v:
                    merged.append(left[i])
                    i += 1
                total += len(left) - i
                merged.append(v)
            return merged + left[i:], total
        return sort(nums)[1]
""",
    "plum-h5": """r, c = map(int, input().split())
grid = [input().strip() for _ in range(r)]
seen = [[False] * c for _ in range(r)]
sizes = []
for i in range(r):
    for j in range(c):
        if grid[i][j] == '#' and not seen[i][j]:
            seen[i][j] = True
            stack, size = [(i, j)], 0
            while stack:
                x, y = stack.pop()
                size += 1
                for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    u, v = x + dx, y + dy
                    if 0 <= u < r and 0 <= v < c and grid[u][v] == '#' and not seen[u][v]:
                        seen[u][v] = True
                        stack.append((u, v))
            sizes.append(size)
print(len(sizes), max(sizes, default=0))
""",
}
